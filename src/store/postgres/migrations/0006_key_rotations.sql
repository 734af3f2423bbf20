-- How far the rotation of a key is, recorded before each of its steps. The last one stays: it says when the next is due.

CREATE TABLE key_rotations (
    integration TEXT   NOT NULL PRIMARY KEY,
    version     BIGINT NOT NULL CHECK (version > 0),
    format      BIGINT NOT NULL,
    body        TEXT   NOT NULL
);
