-- Approvals and emergency tokens that were used: each once. Forgotten when they have expired by themselves.

CREATE TABLE used_tokens (
    token        TEXT    NOT NULL PRIMARY KEY,
    kind         TEXT    NOT NULL CHECK (kind IN ('approval', 'break_glass')),
    grant_id     TEXT    NOT NULL,
    used_at      INTEGER NOT NULL,
    forget_after INTEGER NOT NULL
) STRICT;

CREATE INDEX used_tokens_by_age ON used_tokens (forget_after);

-- Looks back that emergency grants owe.
CREATE TABLE reviews (
    grant_id    TEXT    NOT NULL PRIMARY KEY,
    integration TEXT    NOT NULL,
    is_open     INTEGER NOT NULL CHECK (is_open IN (0, 1)),
    format      INTEGER NOT NULL,
    body        TEXT    NOT NULL
) STRICT;

CREATE INDEX reviews_open ON reviews (grant_id) WHERE is_open = 1;
