-- How far each sink of the audit has acknowledged: it has every event up to this sequence.

CREATE TABLE sink_cursors (
    name     TEXT    NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL CHECK (sequence >= 0)
) STRICT;
