-- The key tables. Nothing in them is ever deleted: a destroyed key leaves a tombstone.
-- Names between braces are replaced by the configured schema and prefix.

-- One row: the name of this key database, bound into every seal and every wrapped key.
CREATE TABLE {key_namespace} (
    only_row   INT         PRIMARY KEY CHECK (only_row = 1),
    namespace  TEXT        NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

-- Key-encryption keys, wrapped by a master key that is elsewhere.
CREATE TABLE {key_encryption_keys} (
    kek_id        UUID        PRIMARY KEY,
    "partition"   TEXT        COLLATE "C" NOT NULL,
    provider      TEXT        NOT NULL,
    master_key_id TEXT        NOT NULL,
    wrapped_kek   BYTEA       NOT NULL,
    state         TEXT        NOT NULL CHECK (state IN ('active', 'decrypt_only', 'retired')),
    created_at    TIMESTAMPTZ NOT NULL
);

CREATE UNIQUE INDEX {index:key_encryption_keys_one_active} ON {key_encryption_keys} ("partition") WHERE state = 'active';

-- Who owns keys, and what may be done with them. These rows decide appends.
CREATE TABLE {key_scopes} (
    scope_kind    TEXT   COLLATE "C" NOT NULL,
    scope_id      TEXT   COLLATE "C" NOT NULL,
    state         TEXT   NOT NULL CHECK (state IN ('live', 'disabled', 'shredded')),
    generation    BIGINT NOT NULL DEFAULT 1 CHECK (generation >= 1),
    active_key_id UUID,
    PRIMARY KEY (scope_kind, scope_id)
);

-- Data keys, wrapped by a key-encryption key. These rows decide redaction.
CREATE TABLE {data_keys} (
    key_id      UUID        PRIMARY KEY,
    scope_kind  TEXT        COLLATE "C" NOT NULL,
    scope_id    TEXT        COLLATE "C" NOT NULL,
    version     BIGINT      NOT NULL CHECK (version >= 1),
    wrapped_key BYTEA,
    kek_id      UUID        NOT NULL REFERENCES {key_encryption_keys} (kek_id),
    state       TEXT        NOT NULL CHECK (state IN ('live', 'shredded')),
    created_at  TIMESTAMPTZ NOT NULL,
    shredded_at TIMESTAMPTZ,
    UNIQUE (scope_kind, scope_id, version),
    FOREIGN KEY (scope_kind, scope_id) REFERENCES {key_scopes} (scope_kind, scope_id),
    CHECK ((state = 'shredded') = (wrapped_key IS NULL)),
    CHECK ((state = 'shredded') = (shredded_at IS NOT NULL))
);

CREATE INDEX {index:data_keys_by_kek} ON {data_keys} (kek_id) WHERE state = 'live';

-- What was done to scopes, and why.
CREATE TABLE {key_scope_changes} (
    change_id  BIGSERIAL   PRIMARY KEY,
    scope_kind TEXT        COLLATE "C" NOT NULL,
    scope_id   TEXT        COLLATE "C" NOT NULL,
    action     TEXT        NOT NULL CHECK (action IN ('shred', 'reopen', 'disable', 'enable')),
    state      TEXT        NOT NULL,
    generation BIGINT      NOT NULL,
    reason     TEXT        NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    FOREIGN KEY (scope_kind, scope_id) REFERENCES {key_scopes} (scope_kind, scope_id)
);

CREATE INDEX {index:key_scope_changes_by_scope} ON {key_scope_changes} (scope_kind, scope_id, change_id);

-- Guards against mistakes by hand: what was sealed depends on these rows.
CREATE FUNCTION {keys_refuse}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {key_namespace}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('a namespace never changes: what was sealed under it would not open any more');
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON {key_scopes}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('key scopes are never deleted: shred them');
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON {data_keys}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('data keys are never deleted: shred their scope');
CREATE TRIGGER stays_shredded BEFORE UPDATE ON {data_keys}
    FOR EACH ROW WHEN (OLD.wrapped_key IS NULL AND NEW.wrapped_key IS NOT NULL)
    EXECUTE FUNCTION {keys_refuse}('a shredded data key stays shredded');
