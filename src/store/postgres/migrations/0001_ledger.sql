-- The ledger. Instants are microseconds since 1970 in UTC. `format` is the layout of the JSON in `body`; a release
-- refuses a body of a newer layout instead of dropping what it does not know. Text is compared byte by byte.

CREATE TABLE grants (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    integration TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    caller      TEXT COLLATE "C" NOT NULL,
    request_id  TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    -- As the caller wrote it, lower-cased where it is an address.
    beneficiary TEXT COLLATE "C" NOT NULL,
    -- Space, target, space, target, space: `LIKE '% deployment/a %'` finds one.
    targets     TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    cause       TEXT COLLATE "C",
    ended_at    BIGINT,
    version     BIGINT NOT NULL,
    format      BIGINT NOT NULL,
    body        TEXT COLLATE "C" NOT NULL,
    -- When the removal is expected to fall due; NULL when none will, or when it was sent.
    ends_by     BIGINT,
    CONSTRAINT grants_state CHECK (state IN ('scheduled', 'awaiting_member', 'activating', 'active', 'revoking', 'ended')),
    CONSTRAINT grants_active_ends CHECK ((state = 'active') = (expires_at IS NOT NULL)),
    CONSTRAINT grants_leave_for_a_cause CHECK ((state IN ('revoking', 'ended')) = (cause IS NOT NULL)),
    CONSTRAINT grants_ended_at CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CONSTRAINT grants_version CHECK (version >= 1)
) WITH (fillfactor = 80);

CREATE INDEX grants_open ON grants (integration, subject, id) WHERE state <> 'ended';
CREATE INDEX grants_by_subject ON grants (subject, id);
CREATE INDEX grants_by_beneficiary ON grants (beneficiary, id);
CREATE INDEX grants_ended ON grants (ended_at, id) WHERE state = 'ended';
CREATE INDEX grants_ending ON grants (integration, (COALESCE(ends_by, expires_at)), subject) WHERE state <> 'ended';
CREATE INDEX grants_by_state ON grants (state, id);

CREATE FUNCTION grants_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'ended' THEN
            RAISE EXCEPTION 'only ended grants are deleted';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.state <> NEW.state AND (OLD.state = 'ended' OR (OLD.state = 'revoking' AND NEW.state <> 'ended')) THEN
        RAISE EXCEPTION 'a grant leaves revoking only as ended, and ended never';
    END IF;
    IF NEW.version <= OLD.version THEN
        RAISE EXCEPTION 'the version of a grant only rises';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER grants_guard BEFORE UPDATE OR DELETE ON grants FOR EACH ROW EXECUTE FUNCTION grants_guard();

CREATE TABLE members (
    integration    TEXT COLLATE "C" NOT NULL,
    subject        TEXT COLLATE "C" NOT NULL,
    version        BIGINT NOT NULL,
    -- Rows owned and removals blocked, counted from the body.
    owned          BIGINT NOT NULL,
    blocked        BIGINT NOT NULL,
    due_at         BIGINT,
    -- Kind (removals first) times 2^32, plus 2^32 - 1 minus the weight: ascending is the order of urgency.
    due_rank       BIGINT,
    format         BIGINT NOT NULL,
    -- Everything but the grants, the version and the due.
    body           TEXT COLLATE "C" NOT NULL,
    -- When the first removal of a member is due, in the past or to come; whatever was tried meanwhile.
    removal_due_at BIGINT,
    -- The strongest power among what is to be removed.
    removal_weight BIGINT NOT NULL DEFAULT 0,
    -- Assignments that were given up and are watched for.
    forgotten      BIGINT NOT NULL DEFAULT 0,
    -- Ended access that is looked for a while longer, and open drift.
    watched        BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (integration, subject),
    CONSTRAINT members_due CHECK ((due_at IS NULL) = (due_rank IS NULL)),
    CONSTRAINT members_counts CHECK (version >= 1 AND owned >= 0 AND blocked >= 0 AND blocked <= owned)
) WITH (fillfactor = 80);

CREATE INDEX members_due ON members (integration, due_rank, due_at, subject) WHERE due_at IS NOT NULL;
CREATE INDEX members_owning ON members (integration, subject) WHERE owned > 0;
CREATE INDEX members_removal_due ON members (integration, removal_due_at, subject, removal_weight)
    WHERE removal_due_at IS NOT NULL;
CREATE INDEX members_forgotten ON members (integration, subject) WHERE forgotten > 0;
CREATE INDEX members_watched ON members (integration, subject) WHERE watched > 0;

CREATE FUNCTION members_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'members are not deleted';
    END IF;
    IF NEW.version <= OLD.version THEN
        RAISE EXCEPTION 'the version of a member only rises';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER members_guard BEFORE UPDATE OR DELETE ON members FOR EACH ROW EXECUTE FUNCTION members_guard();

CREATE TABLE requests (
    caller         TEXT COLLATE "C" NOT NULL,
    request_id     TEXT COLLATE "C" NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    fingerprint    TEXT COLLATE "C",
    grant_id       TEXT COLLATE "C",
    remember_until BIGINT NOT NULL,
    PRIMARY KEY (caller, request_id),
    CONSTRAINT requests_kind CHECK (kind IN ('grant', 'done', 'tombstone')),
    CONSTRAINT requests_fingerprint CHECK ((kind = 'tombstone') = (fingerprint IS NULL)),
    CONSTRAINT requests_grant CHECK (kind <> 'grant' OR grant_id IS NOT NULL)
);

CREATE INDEX requests_remembered ON requests (remember_until);
CREATE INDEX requests_done ON requests (grant_id) WHERE kind = 'done';

CREATE TABLE receipts (
    grant_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    integration TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    -- As the caller wrote it, lower-cased where it is an address.
    beneficiary TEXT COLLATE "C" NOT NULL,
    caller      TEXT COLLATE "C" NOT NULL,
    ended_at    BIGINT NOT NULL,
    -- 1 while a second look is owed.
    is_open     BIGINT NOT NULL,
    format      BIGINT NOT NULL,
    body        TEXT COLLATE "C" NOT NULL,
    CONSTRAINT receipts_open CHECK (is_open IN (0, 1))
);

CREATE INDEX receipts_by_end ON receipts (caller, ended_at, grant_id);
CREATE INDEX receipts_by_subject ON receipts (subject, ended_at, grant_id);
CREATE INDEX receipts_still_open ON receipts (ended_at, grant_id) WHERE is_open = 1;

-- Whoever writes holds this row until its commit, so commits come one after the other, over all replicas: the order of
-- `events.sequence` is the order in which events became visible, without gaps. The lock ends with its transaction.
CREATE TABLE meta (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO meta (name, value) VALUES ('turn', 0);

CREATE TABLE events (
    sequence    BIGINT NOT NULL PRIMARY KEY,
    at          BIGINT NOT NULL,
    integration TEXT COLLATE "C",
    subject     TEXT COLLATE "C",
    grant_id    TEXT COLLATE "C",
    caller      TEXT COLLATE "C",
    kind        TEXT COLLATE "C" NOT NULL,
    format      BIGINT NOT NULL,
    body        TEXT COLLATE "C" NOT NULL
);

CREATE INDEX events_of_grants ON events (grant_id, sequence) WHERE grant_id IS NOT NULL;

CREATE FUNCTION events_numbered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sequence IS NULL THEN
        SELECT COALESCE(MAX(sequence), 0) + 1 INTO NEW.sequence FROM events;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER events_numbered BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION events_numbered();

CREATE FUNCTION stays_as_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are append-only', TG_TABLE_NAME;
END $$;

CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION stays_as_written();
CREATE TRIGGER events_all_stay BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION stays_as_written();

CREATE TABLE organizations (
    organization_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    integration     TEXT COLLATE "C" NOT NULL UNIQUE
);

-- What a ledger must know to notice that it was restored or lost: who it is, and which integrations wait for an
-- operator.
CREATE TABLE facts (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
INSERT INTO facts (name, value) VALUES ('ledger_id', replace(gen_random_uuid()::text, '-', ''));

CREATE TRIGGER facts_stay BEFORE UPDATE ON facts FOR EACH ROW EXECUTE FUNCTION stays_as_written();

CREATE TABLE holds (
    integration TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    format      BIGINT NOT NULL,
    body        TEXT COLLATE "C" NOT NULL
);

-- What there is, counted as it changes: reading it costs the same with ten grants and with a million. No constraint on
-- the numbers: a count that is wrong must never stand in the way of a revocation.
CREATE TABLE census (
    integration TEXT COLLATE "C" NOT NULL,
    -- A state of grants that have not ended, or 'owned' or 'blocked' as in `members`.
    what        TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    PRIMARY KEY (integration, what)
) WITH (fillfactor = 50);

CREATE FUNCTION census_add(of_integration TEXT, of_what TEXT, more BIGINT) RETURNS void LANGUAGE sql AS $$
    INSERT INTO census (integration, what, number) VALUES (of_integration, of_what, more)
    ON CONFLICT (integration, what) DO UPDATE SET number = census.number + excluded.number
$$;

CREATE FUNCTION census_of_grants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.state <> NEW.state AND OLD.state <> 'ended' THEN
        PERFORM census_add(OLD.integration, OLD.state, -1);
    END IF;
    IF NEW.state <> 'ended' AND (TG_OP = 'INSERT' OR OLD.state <> NEW.state) THEN
        PERFORM census_add(NEW.integration, NEW.state, 1);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER census_of_grants AFTER INSERT OR UPDATE OF state ON grants
    FOR EACH ROW EXECUTE FUNCTION census_of_grants();

CREATE FUNCTION census_of_members() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owned_before   BIGINT := 0;
    blocked_before BIGINT := 0;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        owned_before := OLD.owned;
        blocked_before := OLD.blocked;
    END IF;
    IF NEW.owned <> owned_before THEN
        PERFORM census_add(NEW.integration, 'owned', NEW.owned - owned_before);
    END IF;
    IF NEW.blocked <> blocked_before THEN
        PERFORM census_add(NEW.integration, 'blocked', NEW.blocked - blocked_before);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER census_of_members AFTER INSERT OR UPDATE OF owned, blocked ON members
    FOR EACH ROW EXECUTE FUNCTION census_of_members();
