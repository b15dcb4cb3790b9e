-- Snapshots: the newest of each aggregate and each name of a state. They are sealed, and may be deleted at any time.
-- Names between braces are replaced by the configured schema and table names.

CREATE TABLE {table} (
    aggregate_type    TEXT COLLATE "C" NOT NULL,
    aggregate_id      TEXT COLLATE "C" NOT NULL,
    state_name        TEXT COLLATE "C" NOT NULL,
    aggregate_version BIGINT           NOT NULL CHECK (aggregate_version >= 1),
    last_event_id     UUID             NOT NULL,
    fingerprint       BYTEA            NOT NULL,
    sealed            BYTEA            NOT NULL,
    created_at        TIMESTAMPTZ      NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, state_name)
);
