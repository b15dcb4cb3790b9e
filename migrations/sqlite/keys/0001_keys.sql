-- The key tables. Nothing in them is ever deleted: a destroyed key leaves a tombstone.
-- Names between braces are replaced by the configured table names.

-- One row: the name of this key database, bound into every seal and every wrapped key.
CREATE TABLE "{namespace}" (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    namespace  TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

-- Key-encryption keys, wrapped by a master key that is elsewhere.
CREATE TABLE "{key_encryption_keys}" (
    kek_id        TEXT PRIMARY KEY,
    "partition"   TEXT NOT NULL,
    provider      TEXT NOT NULL,
    master_key_id TEXT NOT NULL,
    wrapped_kek   BLOB NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('active', 'decrypt_only', 'retired')),
    created_at    TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX "{key_encryption_keys}_one_active" ON "{key_encryption_keys}" ("partition") WHERE state = 'active';

-- Who owns keys, and what may be done with them. These rows decide appends.
CREATE TABLE "{key_scopes}" (
    scope_kind    TEXT    NOT NULL,
    scope_id      TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('live', 'disabled', 'shredded')),
    generation    INTEGER NOT NULL DEFAULT 1,
    active_key_id TEXT,
    PRIMARY KEY (scope_kind, scope_id)
) STRICT, WITHOUT ROWID;

-- Data keys, wrapped by a key-encryption key. These rows decide redaction.
CREATE TABLE "{data_keys}" (
    key_id      TEXT    PRIMARY KEY,
    scope_kind  TEXT    NOT NULL,
    scope_id    TEXT    NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 1),
    wrapped_key BLOB,
    kek_id      TEXT    NOT NULL REFERENCES "{key_encryption_keys}" (kek_id),
    state       TEXT    NOT NULL CHECK (state IN ('live', 'shredded')),
    created_at  TEXT    NOT NULL,
    shredded_at TEXT,
    UNIQUE (scope_kind, scope_id, version),
    FOREIGN KEY (scope_kind, scope_id) REFERENCES "{key_scopes}" (scope_kind, scope_id),
    CHECK ((state = 'shredded') = (wrapped_key IS NULL)),
    CHECK ((state = 'shredded') = (shredded_at IS NOT NULL))
) STRICT;

CREATE INDEX "{data_keys}_by_kek" ON "{data_keys}" (kek_id) WHERE state = 'live';

-- What was done to scopes, and why.
CREATE TABLE "{key_scope_changes}" (
    change_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    scope_kind TEXT    NOT NULL,
    scope_id   TEXT    NOT NULL,
    action     TEXT    NOT NULL CHECK (action IN ('shred', 'reopen', 'disable', 'enable')),
    state      TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    changed_at TEXT    NOT NULL,
    FOREIGN KEY (scope_kind, scope_id) REFERENCES "{key_scopes}" (scope_kind, scope_id)
) STRICT;

CREATE INDEX "{key_scope_changes}_by_scope" ON "{key_scope_changes}" (scope_kind, scope_id, change_id);

-- Guards against mistakes by hand: what was sealed depends on these rows. REPLACE deletes rows without firing
-- delete triggers, so what it would replace is refused beforehand.
CREATE TRIGGER "{namespace}_is_immutable" BEFORE UPDATE ON "{namespace}"
BEGIN SELECT raise(ABORT, 'a namespace never changes: what was sealed under it would not open any more'); END;
CREATE TRIGGER "{namespace}_stays" BEFORE DELETE ON "{namespace}"
BEGIN SELECT raise(ABORT, 'a namespace is never deleted'); END;
CREATE TRIGGER "{key_scopes}_stay" BEFORE DELETE ON "{key_scopes}"
BEGIN SELECT raise(ABORT, 'key scopes are never deleted: shred them'); END;
CREATE TRIGGER "{data_keys}_stay" BEFORE DELETE ON "{data_keys}"
BEGIN SELECT raise(ABORT, 'data keys are never deleted: shred their scope'); END;
CREATE TRIGGER "{data_keys}_stay_shredded" BEFORE UPDATE ON "{data_keys}" WHEN old.wrapped_key IS NULL AND new.wrapped_key IS NOT NULL
BEGIN SELECT raise(ABORT, 'a shredded data key stays shredded'); END;
CREATE TRIGGER "{namespace}_is_not_replaced" BEFORE INSERT ON "{namespace}" WHEN EXISTS (SELECT 1 FROM "{namespace}")
BEGIN SELECT raise(ABORT, 'a namespace never changes: what was sealed under it would not open any more'); END;
CREATE TRIGGER "{key_scopes}_are_not_replaced" BEFORE INSERT ON "{key_scopes}"
WHEN EXISTS (SELECT 1 FROM "{key_scopes}" WHERE scope_kind = new.scope_kind AND scope_id = new.scope_id)
BEGIN SELECT raise(ABORT, 'key scopes are never replaced: shred them'); END;
CREATE TRIGGER "{data_keys}_are_not_replaced" BEFORE INSERT ON "{data_keys}"
WHEN EXISTS (SELECT 1 FROM "{data_keys}" WHERE key_id = new.key_id)
    OR EXISTS (SELECT 1 FROM "{data_keys}" WHERE scope_kind = new.scope_kind AND scope_id = new.scope_id AND version = new.version)
BEGIN SELECT raise(ABORT, 'data keys are never replaced: shred their scope'); END;
CREATE TRIGGER "{key_scopes}_are_not_moved" BEFORE UPDATE OF scope_kind, scope_id ON "{key_scopes}"
WHEN (old.scope_kind, old.scope_id) <> (new.scope_kind, new.scope_id)
    AND EXISTS (SELECT 1 FROM "{key_scopes}" WHERE scope_kind = new.scope_kind AND scope_id = new.scope_id)
BEGIN SELECT raise(ABORT, 'key scopes are never replaced: shred them'); END;
CREATE TRIGGER "{data_keys}_are_not_moved" BEFORE UPDATE OF key_id, scope_kind, scope_id, version ON "{data_keys}"
WHEN EXISTS (SELECT 1 FROM "{data_keys}" WHERE key_id = new.key_id AND key_id <> old.key_id)
    OR EXISTS (SELECT 1 FROM "{data_keys}"
        WHERE scope_kind = new.scope_kind AND scope_id = new.scope_id AND version = new.version AND key_id <> old.key_id)
BEGIN SELECT raise(ABORT, 'data keys are never replaced: shred their scope'); END;
