-- Members whose ended access is looked for a while longer, or whose drift is open, found without reading bodies.

ALTER TABLE members ADD COLUMN watched INTEGER NOT NULL DEFAULT 0;

CREATE INDEX members_watched ON members (integration, subject) WHERE watched > 0;
