-- Filtered reads of the log go through these.
-- Names between braces are replaced by the configured table names.

CREATE INDEX IF NOT EXISTS "idx_{events}_event_type" ON "{events}" (event_type, global_position);

CREATE INDEX IF NOT EXISTS "idx_{events}_type_position" ON "{events}" (aggregate_type, global_position);
