-- Seals over the audit: each block signs a run of events and the block before it. Hashes and signature are base64.

CREATE TABLE audit_blocks (
    number    INTEGER PRIMARY KEY,
    last      INTEGER NOT NULL UNIQUE,
    header    TEXT    NOT NULL,
    leaves    TEXT    NOT NULL,
    signature TEXT    NOT NULL
) STRICT;

CREATE TRIGGER audit_blocks_stay_as_written BEFORE UPDATE ON audit_blocks
BEGIN
    SELECT RAISE(ABORT, 'blocks of the audit are append-only');
END;

CREATE TRIGGER audit_blocks_stay BEFORE DELETE ON audit_blocks
BEGIN
    SELECT RAISE(ABORT, 'blocks of the audit are append-only');
END;
