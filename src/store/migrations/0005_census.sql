-- What there is, counted as it changes: reading it costs the same with ten grants and with a million. No constraint on
-- the numbers: a count that is wrong must never stand in the way of a revocation.
CREATE TABLE census (
    integration TEXT NOT NULL,
    -- A state of grants that have not ended, or 'owned' or 'blocked' as in `members`.
    what        TEXT NOT NULL,
    number      INTEGER NOT NULL,
    PRIMARY KEY (integration, what)
) STRICT, WITHOUT ROWID;

INSERT INTO census (integration, what, number)
SELECT integration, state, COUNT(*) FROM grants WHERE state <> 'ended' GROUP BY integration, state;
INSERT INTO census (integration, what, number)
SELECT integration, 'owned', SUM(owned) FROM members WHERE owned > 0 GROUP BY integration;
INSERT INTO census (integration, what, number)
SELECT integration, 'blocked', SUM(blocked) FROM members WHERE owned > 0 GROUP BY integration;

CREATE TRIGGER census_grant_made AFTER INSERT ON grants WHEN NEW.state <> 'ended'
BEGIN
    INSERT INTO census (integration, what, number) VALUES (NEW.integration, NEW.state, 1)
    ON CONFLICT (integration, what) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER census_grant_moved AFTER UPDATE OF state ON grants WHEN OLD.state <> NEW.state
BEGIN
    UPDATE census SET number = number - 1 WHERE integration = OLD.integration AND what = OLD.state;
    INSERT INTO census (integration, what, number) SELECT NEW.integration, NEW.state, 1 WHERE NEW.state <> 'ended'
    ON CONFLICT (integration, what) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER census_member_made AFTER INSERT ON members WHEN NEW.owned > 0
BEGIN
    INSERT INTO census (integration, what, number)
    VALUES (NEW.integration, 'owned', NEW.owned), (NEW.integration, 'blocked', NEW.blocked)
    ON CONFLICT (integration, what) DO UPDATE SET number = number + excluded.number;
END;

CREATE TRIGGER census_member_changed AFTER UPDATE OF owned, blocked ON members
WHEN OLD.owned <> NEW.owned OR OLD.blocked <> NEW.blocked
BEGIN
    INSERT INTO census (integration, what, number)
    VALUES (NEW.integration, 'owned', NEW.owned - OLD.owned), (NEW.integration, 'blocked', NEW.blocked - OLD.blocked)
    ON CONFLICT (integration, what) DO UPDATE SET number = number + excluded.number;
END;

-- Grants of one state, newest first, whatever else there is.
CREATE INDEX grants_by_state ON grants (state, id);
