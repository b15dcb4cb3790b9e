-- A copy of the shred log of another database: lines of text, which are only ever added.
-- Names between braces are replaced by the configured schema and table names.

CREATE TABLE {table} (
    line BIGINT PRIMARY KEY CHECK (line >= 1),
    text TEXT   NOT NULL
);

CREATE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'lines of a copy of the shred log are only ever added' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuse}();
