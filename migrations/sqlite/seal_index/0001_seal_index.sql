-- The index of seals: which keys seal the event at which position. It is optional.
-- Names between braces are replaced by the configured table names.

-- All rows of an event are written in one transaction. The key 00000000-0000-0000-0000-000000000000 stands for a header
-- that can't be read.
CREATE TABLE "{sealed_events}" (
    global_position INTEGER NOT NULL,
    key_id          TEXT    NOT NULL,
    PRIMARY KEY (global_position, key_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX "idx_{sealed_events}_key" ON "{sealed_events}" (key_id, global_position);

-- One row: up to where the index is complete, and the event at that position.
CREATE TABLE "{sealed_events}_mark" (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    index_id       TEXT    NOT NULL,
    complete_up_to INTEGER NOT NULL CHECK (complete_up_to >= 0),
    last_event     TEXT
) STRICT;

INSERT INTO "{sealed_events}_mark" (only_row, index_id, complete_up_to)
VALUES (1, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' ||
    substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))), 0);
