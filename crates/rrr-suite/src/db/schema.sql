CREATE TABLE suite (
    name    TEXT PRIMARY KEY,
    about   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    measure TEXT NOT NULL,
    text    TEXT NOT NULL,      -- the file as it was
    updated INTEGER NOT NULL    -- milliseconds since 1970
) STRICT;

CREATE TABLE task (
    hash     TEXT PRIMARY KEY,  -- SHA-256 of key
    key      TEXT NOT NULL,     -- canonical JSON of all that determines the result
    after    TEXT,              -- hash of the task whose model this one needs
    state    TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    owner    TEXT,              -- host, process and a random number, while it runs
    host     TEXT,
    lease    INTEGER,           -- until when the owner is believed, in milliseconds since 1970
    started  INTEGER,
    finished INTEGER,
    seconds  REAL NOT NULL DEFAULT 0,  -- spent by all its workers
    done     INTEGER NOT NULL DEFAULT 0,
    total    INTEGER NOT NULL DEFAULT 0,
    message  TEXT,              -- why it failed
    config   TEXT NOT NULL,     -- the resolved configuration, TOML
    result   TEXT               -- JSON
) STRICT;

CREATE TABLE entry (
    suite    TEXT NOT NULL REFERENCES suite (name),
    position INTEGER NOT NULL,
    task     TEXT NOT NULL REFERENCES task (hash),
    dataset  TEXT NOT NULL,
    method   TEXT NOT NULL,
    about    TEXT NOT NULL,
    seed     INTEGER NOT NULL,
    series   TEXT,
    step     INTEGER,
    varied   TEXT NOT NULL,     -- JSON object
    PRIMARY KEY (suite, position)
) STRICT;
CREATE INDEX entry_task ON entry (task);
