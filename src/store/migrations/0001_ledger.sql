-- The ledger. Instants are microseconds since 1970 in UTC. `format` is the layout of the JSON in `body`; a release
-- refuses a body of a newer layout instead of dropping what it does not know.

CREATE TABLE grants (
    id          TEXT NOT NULL PRIMARY KEY,
    integration TEXT NOT NULL,
    subject     TEXT NOT NULL,
    caller      TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    state       TEXT NOT NULL,
    -- As the caller wrote it, lower-cased where it is an address.
    beneficiary TEXT NOT NULL,
    -- Space, target, space, target, space: `LIKE '% deployment/a %'` finds one.
    targets     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    cause       TEXT,
    ended_at    INTEGER,
    version     INTEGER NOT NULL,
    format      INTEGER NOT NULL,
    body        TEXT NOT NULL,
    CONSTRAINT grants_state CHECK (state IN ('scheduled', 'awaiting_member', 'activating', 'active', 'revoking', 'ended')),
    CONSTRAINT grants_active_ends CHECK ((state = 'active') = (expires_at IS NOT NULL)),
    CONSTRAINT grants_leave_for_a_cause CHECK ((state IN ('revoking', 'ended')) = (cause IS NOT NULL)),
    CONSTRAINT grants_ended_at CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CONSTRAINT grants_version CHECK (version >= 1)
) STRICT;

CREATE INDEX grants_open ON grants (integration, subject, id, state) WHERE state <> 'ended';
CREATE INDEX grants_by_subject ON grants (subject, id);
CREATE INDEX grants_by_beneficiary ON grants (beneficiary, id);
CREATE INDEX grants_ended ON grants (ended_at, id) WHERE state = 'ended';

CREATE TRIGGER grants_never_return BEFORE UPDATE OF state ON grants
WHEN OLD.state <> NEW.state AND (OLD.state = 'ended' OR (OLD.state = 'revoking' AND NEW.state <> 'ended'))
BEGIN
    SELECT RAISE(ABORT, 'a grant leaves revoking only as ended, and ended never');
END;

CREATE TRIGGER grants_version_rises BEFORE UPDATE ON grants
WHEN NEW.version <= OLD.version
BEGIN
    SELECT RAISE(ABORT, 'the version of a grant only rises');
END;

CREATE TRIGGER grants_deleted_when_ended BEFORE DELETE ON grants
WHEN OLD.state <> 'ended'
BEGIN
    SELECT RAISE(ABORT, 'only ended grants are deleted');
END;

CREATE TABLE members (
    integration TEXT NOT NULL,
    subject     TEXT NOT NULL,
    version     INTEGER NOT NULL,
    -- Rows owned and removals blocked, counted from the body.
    owned       INTEGER NOT NULL,
    blocked     INTEGER NOT NULL,
    due_at      INTEGER,
    -- Kind (removals first) times 2^32, plus 2^32 - 1 minus the weight: ascending is the order of urgency.
    due_rank    INTEGER,
    format      INTEGER NOT NULL,
    -- Everything but the grants, the version and the due.
    body        TEXT NOT NULL,
    PRIMARY KEY (integration, subject),
    CONSTRAINT members_due CHECK ((due_at IS NULL) = (due_rank IS NULL)),
    CONSTRAINT members_counts CHECK (version >= 1 AND owned >= 0 AND blocked >= 0 AND blocked <= owned)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_due ON members (integration, due_rank, due_at, subject) WHERE due_at IS NOT NULL;
CREATE INDEX members_owning ON members (integration, subject, owned, blocked) WHERE owned > 0;

CREATE TRIGGER members_version_rises BEFORE UPDATE ON members
WHEN NEW.version <= OLD.version
BEGIN
    SELECT RAISE(ABORT, 'the version of a member only rises');
END;

CREATE TRIGGER members_stay BEFORE DELETE ON members
BEGIN
    SELECT RAISE(ABORT, 'members are not deleted');
END;

CREATE TABLE requests (
    caller         TEXT NOT NULL,
    request_id     TEXT NOT NULL,
    kind           TEXT NOT NULL,
    fingerprint    TEXT,
    grant_id       TEXT,
    remember_until INTEGER NOT NULL,
    PRIMARY KEY (caller, request_id),
    CONSTRAINT requests_kind CHECK (kind IN ('grant', 'done', 'tombstone')),
    CONSTRAINT requests_fingerprint CHECK ((kind = 'tombstone') = (fingerprint IS NULL)),
    CONSTRAINT requests_grant CHECK (kind <> 'grant' OR grant_id IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_remembered ON requests (remember_until);
CREATE INDEX requests_done ON requests (grant_id) WHERE kind = 'done';

CREATE TABLE events (
    sequence    INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    integration TEXT,
    subject     TEXT,
    grant_id    TEXT,
    caller      TEXT,
    kind        TEXT NOT NULL,
    format      INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT;

CREATE INDEX events_of_grants ON events (grant_id, sequence) WHERE grant_id IS NOT NULL;

CREATE TRIGGER events_stay_as_written BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'audit events are append-only');
END;

CREATE TRIGGER events_stay BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'audit events are append-only');
END;

CREATE TABLE organizations (
    organization_id TEXT NOT NULL PRIMARY KEY,
    integration     TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
