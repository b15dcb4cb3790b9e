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

CREATE FUNCTION {follow}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last BIGINT;
BEGIN
    EXECUTE format('SELECT coalesce(max(line), 0) FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO last;
    -- A line that somebody else has added meanwhile is a conflict of the primary key.
    IF NEW.line > last + 1 THEN
        RAISE EXCEPTION 'lines of a copy of the shred log are numbered without gaps' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER lines_follow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {follow}();

CREATE TRIGGER lines_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuse}();
