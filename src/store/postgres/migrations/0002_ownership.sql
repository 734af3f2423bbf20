-- Who of several replicas works on which organization. Deadlines are instants of this server's clock; nobody compares
-- them with a clock of their own.

CREATE TABLE ownership (
    integration TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- Empty when the last holder let go.
    holder      TEXT COLLATE "C" NOT NULL,
    -- Rises with every change of hands. A write that carries an older one is refused.
    epoch       BIGINT NOT NULL,
    deadline    TIMESTAMPTZ NOT NULL,
    CONSTRAINT ownership_epoch CHECK (epoch >= 0)
) WITH (fillfactor = 50);

CREATE FUNCTION ownership_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of an owner only rises';
    END IF;
    IF NEW.holder <> OLD.holder AND NEW.holder <> '' AND NEW.epoch = OLD.epoch THEN
        RAISE EXCEPTION 'a new owner has a new epoch';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER ownership_guard BEFORE UPDATE ON ownership FOR EACH ROW EXECUTE FUNCTION ownership_guard();

-- The replicas that run, so that each takes its share.
CREATE TABLE replicas (
    name     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    deadline TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);
