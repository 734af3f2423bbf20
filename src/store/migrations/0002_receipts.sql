-- Receipts of grants that ended, and what operators ask of members: since when something should be gone, and what was
-- given up. Instants are microseconds since 1970 in UTC.

CREATE TABLE receipts (
    grant_id    TEXT NOT NULL PRIMARY KEY,
    integration TEXT NOT NULL,
    subject     TEXT NOT NULL,
    -- As the caller wrote it, lower-cased where it is an address.
    beneficiary TEXT NOT NULL,
    caller      TEXT NOT NULL,
    ended_at    INTEGER NOT NULL,
    -- 1 while a second look is owed.
    is_open     INTEGER NOT NULL,
    format      INTEGER NOT NULL,
    body        TEXT NOT NULL,
    CONSTRAINT receipts_open CHECK (is_open IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX receipts_by_end ON receipts (caller, ended_at, grant_id);
CREATE INDEX receipts_by_subject ON receipts (subject, ended_at, grant_id);
CREATE INDEX receipts_still_open ON receipts (ended_at, grant_id) WHERE is_open = 1;

-- When the first removal of a member is due, in the past or to come; whatever was tried meanwhile.
ALTER TABLE members ADD COLUMN removal_due_at INTEGER;
-- The strongest power among what is to be removed.
ALTER TABLE members ADD COLUMN removal_weight INTEGER NOT NULL DEFAULT 0;
-- Assignments that were given up and are watched for.
ALTER TABLE members ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;

-- Members that own something: their next commit makes this exact.
UPDATE members SET version = version + 1, removal_due_at = (
    SELECT MIN(COALESCE(expires_at, CASE state WHEN 'revoking'
        THEN CAST(strftime('%s', json_extract(body, '$.state.since')) AS INTEGER) * 1000000 END))
    FROM grants
    WHERE grants.integration = members.integration AND grants.subject = members.subject AND state <> 'ended')
WHERE owned > 0;

CREATE INDEX members_removal_due ON members (integration, removal_due_at, subject, removal_weight)
WHERE removal_due_at IS NOT NULL;
CREATE INDEX members_forgotten ON members (integration, subject) WHERE forgotten > 0;
