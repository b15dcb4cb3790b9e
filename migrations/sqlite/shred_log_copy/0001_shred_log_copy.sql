-- A copy of the shred log of another database: lines of text, which are only ever added.
-- Names between braces are replaced by the configured table name.

CREATE TABLE {table} (
    line INTEGER PRIMARY KEY CHECK (line >= 1),
    text TEXT    NOT NULL
) STRICT;

CREATE TRIGGER "{name}_stays" BEFORE DELETE ON {table}
BEGIN SELECT raise(ABORT, 'lines of a copy of the shred log are only ever added'); END;
CREATE TRIGGER "{name}_stays_as_it_is" BEFORE UPDATE ON {table}
BEGIN SELECT raise(ABORT, 'lines of a copy of the shred log are only ever added'); END;
CREATE TRIGGER "{name}_is_not_replaced" BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE line = new.line)
BEGIN SELECT raise(ABORT, 'lines of a copy of the shred log are only ever added'); END;
CREATE TRIGGER "{name}_has_no_gaps" BEFORE INSERT ON {table}
WHEN new.line > coalesce((SELECT max(line) FROM {table}), 0) + 1
BEGIN SELECT raise(ABORT, 'lines of a copy of the shred log are numbered without gaps'); END;
