-- The event log: the tables of eventsalsa/store 0.0.2.
-- Names between braces are replaced by the configured table and column names.

CREATE TABLE {events} (
    global_position     BIGSERIAL   PRIMARY KEY,
    {aggregate_type}    TEXT        NOT NULL,
    {aggregate_id}      TEXT        NOT NULL,
    {aggregate_version} BIGINT      NOT NULL CHECK ({aggregate_version} >= 1),
    event_id            UUID        NOT NULL UNIQUE,
    event_type          TEXT        NOT NULL,
    event_version       INT         NOT NULL DEFAULT 1,
    payload             BYTEA       NOT NULL,
    trace_id            TEXT,
    correlation_id      TEXT,
    causation_id        TEXT,
    metadata            JSONB,
    created_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE ({aggregate_type}, {aggregate_id}, {aggregate_version})
);

CREATE TABLE {heads} (
    {aggregate_type}    TEXT        NOT NULL,
    {aggregate_id}      TEXT        NOT NULL,
    {aggregate_version} BIGINT      NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY ({aggregate_type}, {aggregate_id})
);
