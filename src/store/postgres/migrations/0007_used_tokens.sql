-- Approvals and emergency tokens that were used: each once. Forgotten when they have expired by themselves.

CREATE TABLE used_tokens (
    token        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind         TEXT COLLATE "C" NOT NULL CHECK (kind IN ('approval', 'break_glass')),
    grant_id     TEXT COLLATE "C" NOT NULL,
    used_at      BIGINT NOT NULL,
    forget_after BIGINT NOT NULL
);

CREATE INDEX used_tokens_by_age ON used_tokens (forget_after);

-- Looks back that emergency grants owe.
CREATE TABLE reviews (
    grant_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    integration TEXT COLLATE "C" NOT NULL,
    is_open     BIGINT NOT NULL CHECK (is_open IN (0, 1)),
    format      BIGINT NOT NULL,
    body        TEXT NOT NULL
);

CREATE INDEX reviews_open ON reviews (grant_id) WHERE is_open = 1;
