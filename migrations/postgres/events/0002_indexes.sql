-- The secondary indexes of eventsalsa/store: filtered reads of the log go through them.
-- Names between braces are replaced by the configured table and column names.
--
-- On a large table, make them beforehand with CREATE INDEX CONCURRENTLY and these names: what is there is left alone.

CREATE INDEX IF NOT EXISTS "idx_{events_name}_event_type" ON {events} (event_type, global_position);

CREATE INDEX IF NOT EXISTS "idx_{events_name}_type_position" ON {events} ({aggregate_type}, global_position);

CREATE INDEX IF NOT EXISTS "idx_{events_name}_correlation" ON {events} (correlation_id) WHERE correlation_id IS NOT NULL;
