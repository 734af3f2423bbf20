-- What the last read showed of members about whom nothing is left to find out, in sixteen bytes, and until when that
-- holds: a search for drift compares them without reading a body. Rows of earlier releases have it with their next
-- write; until then they are loaded.

ALTER TABLE members ADD COLUMN sight BLOB;
ALTER TABLE members ADD COLUMN sight_until INTEGER;

CREATE INDEX members_settled ON members (integration, subject, sight, sight_until) WHERE sight IS NOT NULL;
