-- Snapshots: the newest of each aggregate and each name of a state. They are sealed, and may be deleted at any time.
-- Names between braces are replaced by the configured table name.

CREATE TABLE {table} (
    aggregate_type    TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    state_name        TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL CHECK (aggregate_version >= 1),
    last_event_id     TEXT    NOT NULL,
    fingerprint       BLOB    NOT NULL,
    sealed            BLOB    NOT NULL,
    created_at        TEXT    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, state_name)
) STRICT;
