-- The index of seals: which keys seal the event at which position. It is optional.
-- Names between braces are replaced by the configured schema and table names.

-- All rows of an event are written in one statement. The key 00000000-0000-0000-0000-000000000000 stands for a header
-- that can't be read.
CREATE TABLE {sealed_events} (
    global_position BIGINT NOT NULL,
    key_id          UUID   NOT NULL,
    PRIMARY KEY (global_position, key_id)
);

CREATE INDEX "idx_{sealed_events_name}_key" ON {sealed_events} (key_id, global_position);

-- One row: up to where the index is complete, and the event at that position.
CREATE TABLE {sealed_events_mark} (
    only_row       INT    PRIMARY KEY CHECK (only_row = 1),
    index_id       UUID   NOT NULL,
    complete_up_to BIGINT NOT NULL CHECK (complete_up_to >= 0),
    last_event     UUID
);

INSERT INTO {sealed_events_mark} (only_row, index_id, complete_up_to) VALUES (1, gen_random_uuid(), 0);
