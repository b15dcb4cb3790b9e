-- The entries of blind indexes: keyed hashes of values, and whose values they are. It is optional.
-- Names between braces are replaced by the configured table name.

-- The place of an entry. `slot` is empty if the index is unique, so that a value has one owner. Otherwise it is a hash
-- of the scope. `generation` is that of the scope when the entry was added: after a shred, another one begins.
CREATE TABLE {blind_index} (
    key_id     TEXT NOT NULL,
    index_name TEXT NOT NULL,
    hash       BLOB NOT NULL,
    slot       BLOB NOT NULL,
    scope_kind TEXT NOT NULL,
    scope_id   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (key_id, index_name, hash, slot)
) STRICT, WITHOUT ROWID;

CREATE INDEX "idx_{name}_scope" ON {blind_index} (scope_kind, scope_id, index_name);
