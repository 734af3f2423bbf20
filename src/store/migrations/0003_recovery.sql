-- What a ledger must know to notice that it was restored or lost: who it is, and which integrations wait for an
-- operator. The generation, and whether a witness is in use, stand in `meta` as `generation` and `witnessed`.

CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO facts (name, value) VALUES ('ledger_id', lower(hex(randomblob(16))));

CREATE TRIGGER facts_stay_as_written BEFORE UPDATE ON facts
BEGIN
    SELECT RAISE(ABORT, 'facts do not change');
END;

CREATE TABLE holds (
    integration TEXT NOT NULL PRIMARY KEY,
    format      INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
