-- When the removal of a grant is expected to fall due; NULL when none will, or when it was sent. Rows of earlier
-- releases have it with their next write; until then the end of an active grant stands for it.
ALTER TABLE grants ADD COLUMN ends_by INTEGER;

CREATE INDEX grants_ending ON grants (integration, COALESCE(ends_by, expires_at), subject) WHERE state <> 'ended';
