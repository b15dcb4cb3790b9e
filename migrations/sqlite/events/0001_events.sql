-- The event log: the columns of eventsalsa/store 0.0.2.
-- Names between braces are replaced by the configured table names.

CREATE TABLE "{events}" (
    global_position   INTEGER PRIMARY KEY AUTOINCREMENT,
    aggregate_type    TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL CHECK (aggregate_version >= 1),
    event_id          TEXT    NOT NULL UNIQUE,
    event_type        TEXT    NOT NULL,
    event_version     INTEGER NOT NULL DEFAULT 1,
    payload           BLOB    NOT NULL,
    trace_id          TEXT,
    correlation_id    TEXT,
    causation_id      TEXT,
    metadata          TEXT,
    created_at        TEXT    NOT NULL,
    UNIQUE (aggregate_type, aggregate_id, aggregate_version)
) STRICT;

CREATE TABLE "{heads}" (
    aggregate_type    TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL,
    updated_at        TEXT    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) STRICT, WITHOUT ROWID;

-- In a trigger, so that an append is one statement: nothing can be interrupted between events and head.
CREATE TRIGGER "{events}_move_head" AFTER INSERT ON "{events}"
BEGIN
    INSERT INTO "{heads}" (aggregate_type, aggregate_id, aggregate_version, updated_at)
    VALUES (new.aggregate_type, new.aggregate_id, new.aggregate_version, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
    ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
    SET aggregate_version = excluded.aggregate_version, updated_at = excluded.updated_at;
END;
