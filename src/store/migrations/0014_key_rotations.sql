-- How far the rotation of a key is, recorded before each of its steps. The last one stays: it says when the next is due.

CREATE TABLE key_rotations (
    integration TEXT    NOT NULL PRIMARY KEY,
    version     INTEGER NOT NULL CHECK (version > 0),
    format      INTEGER NOT NULL,
    body        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
