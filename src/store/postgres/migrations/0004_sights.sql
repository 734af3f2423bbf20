-- What the last read showed of members about whom nothing is left to find out, in sixteen bytes, and until when that
-- holds: a search for drift compares them without reading a body.

ALTER TABLE members ADD COLUMN sight BYTEA;
ALTER TABLE members ADD COLUMN sight_until BIGINT;

CREATE INDEX members_settled ON members (integration, subject) INCLUDE (sight, sight_until) WHERE sight IS NOT NULL;
