-- Seals over the audit: each block signs a run of events and the block before it. Hashes and signature are base64.

CREATE TABLE audit_blocks (
    number    BIGINT NOT NULL PRIMARY KEY,
    last      BIGINT NOT NULL UNIQUE,
    header    TEXT NOT NULL,
    leaves    TEXT NOT NULL,
    signature TEXT NOT NULL
);

CREATE TRIGGER audit_blocks_stay BEFORE UPDATE OR DELETE ON audit_blocks FOR EACH ROW EXECUTE FUNCTION stays_as_written();
CREATE TRIGGER audit_blocks_all_stay BEFORE TRUNCATE ON audit_blocks FOR EACH STATEMENT EXECUTE FUNCTION stays_as_written();
