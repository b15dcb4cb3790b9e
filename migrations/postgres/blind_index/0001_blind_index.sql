-- The entries of blind indexes: keyed hashes of values, and whose values they are. It is optional.
-- Names between braces are replaced by the configured schema and table name.

-- The place of an entry. `slot` is empty if the index is unique, so that a value has one owner. Otherwise it is a hash
-- of the scope. `generation` is that of the scope when the entry was added: after a shred, another one begins.
CREATE TABLE {blind_index} (
    key_id     UUID  NOT NULL,
    index_name TEXT  COLLATE "C" NOT NULL,
    hash       BYTEA NOT NULL,
    slot       BYTEA NOT NULL,
    scope_kind TEXT  COLLATE "C" NOT NULL,
    scope_id   TEXT  COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (key_id, index_name, hash, slot)
);

CREATE INDEX "idx_{name}_scope" ON {blind_index} (scope_kind, scope_id, index_name);
