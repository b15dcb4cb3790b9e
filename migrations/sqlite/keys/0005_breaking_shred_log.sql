-- The shred log: every decision about a scope, authenticated, in a chain. Older code writes no entries, so it must stop.

-- A disabled scope whose values are shown as if they were shredded, until a schedule comes due or is cancelled.
ALTER TABLE "{key_scopes}" ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0 CHECK (withheld IN (0, 1) AND (withheld = 0 OR state = 'disabled'));
-- When a scheduled shred comes due: a copy of what the entries say, for a look into an index.
ALTER TABLE "{key_scopes}" ADD COLUMN due_at TEXT;
CREATE INDEX "{key_scopes}_due" ON "{key_scopes}" (due_at, scope_kind, scope_id) WHERE due_at IS NOT NULL;

-- Decisions. Those of a scope are numbered from 1, and the MAC of each covers the one before it.
CREATE TABLE "{shred_entries}" (
    entry_id   TEXT    PRIMARY KEY,
    scope_kind TEXT    NOT NULL,
    scope_id   TEXT    NOT NULL,
    scope_seq  INTEGER NOT NULL CHECK (scope_seq >= 1),
    decided_at TEXT    NOT NULL,
    action     TEXT    NOT NULL
        CHECK (action IN ('shred', 'reopen', 'disable', 'enable', 'hold', 'release', 'schedule', 'cancel', 'fork',
            'adopt')),
    state      TEXT    NOT NULL CHECK (state IN ('live', 'disabled', 'withheld', 'shredded')),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    -- The keys that were destroyed, as JSON: [[key id, version, key-encryption key, created at], ...]
    keys       TEXT    NOT NULL DEFAULT '[]',
    -- When a hold ends, or a schedule comes due.
    until      TEXT,
    -- The entry of the hold that is released, or of the schedule that is cancelled or was carried out.
    about      TEXT,
    reason     TEXT    NOT NULL,
    actor      TEXT,
    -- The integrity key under which the MAC was made. Both are NULL for changes from before there was a log.
    mac_key_id TEXT,
    mac        BLOB,
    -- Does the chain have it?
    sealed     INTEGER NOT NULL DEFAULT 0 CHECK (sealed IN (0, 1)),
    UNIQUE (scope_kind, scope_id, scope_seq),
    FOREIGN KEY (scope_kind, scope_id) REFERENCES "{key_scopes}" (scope_kind, scope_id),
    CHECK ((mac IS NULL) = (mac_key_id IS NULL))
) STRICT;

CREATE INDEX "{shred_entries}_unsealed" ON "{shred_entries}" (scope_kind, scope_id, scope_seq) WHERE sealed = 0;
CREATE INDEX "{shred_entries}_holds" ON "{shred_entries}" (scope_kind, scope_id, scope_seq) WHERE action = 'hold';
CREATE INDEX "{shred_entries}_shreds" ON "{shred_entries}" (scope_kind, scope_id, scope_seq)
    WHERE action IN ('shred', 'adopt');

-- The chain of a namespace's entries.
CREATE TABLE "{shred_log}" (
    seq           INTEGER PRIMARY KEY CHECK (seq >= 1),
    entry_id      TEXT NOT NULL UNIQUE REFERENCES "{shred_entries}" (entry_id),
    previous_hash BLOB NOT NULL,
    hash          BLOB NOT NULL,
    mac_key_id    TEXT NOT NULL,
    mac           BLOB NOT NULL
) STRICT;

-- One row: the end of the chain.
CREATE TABLE "{shred_log_head}" (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq      INTEGER NOT NULL CHECK (seq >= 0),
    hash     BLOB    NOT NULL
) STRICT;
INSERT INTO "{shred_log_head}" (only_row, seq, hash) VALUES (1, 0, zeroblob(32));

-- What was changed before there was a log, without a MAC. Nothing acts on it until it is adopted.
INSERT INTO "{shred_entries}" (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation, reason, actor)
    SELECT lower(substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-4' || substr(hex, 14, 3) || '-8' || substr(hex, 18, 3)
            || '-' || substr(hex, 21, 12)),
        scope_kind, scope_id, scope_seq, changed_at, action, state, generation, reason, actor
    FROM (SELECT hex(randomblob(16)) AS hex, c.*,
            row_number() OVER (PARTITION BY scope_kind, scope_id ORDER BY change_id) AS scope_seq
        FROM "{key_scope_changes}" AS c);
DROP TABLE "{key_scope_changes}";

CREATE TRIGGER "{shred_entries}_stay" BEFORE DELETE ON "{shred_entries}"
BEGIN SELECT raise(ABORT, 'entries of the shred log are never deleted'); END;
CREATE TRIGGER "{shred_entries}_stay_as_they_are" BEFORE UPDATE ON "{shred_entries}"
WHEN (new.entry_id, new.scope_kind, new.scope_id, new.scope_seq, new.decided_at, new.action, new.state, new.generation,
        new.keys, new.until, new.about, new.reason, new.actor, new.mac_key_id, new.mac)
    IS NOT (old.entry_id, old.scope_kind, old.scope_id, old.scope_seq, old.decided_at, old.action, old.state, old.generation,
        old.keys, old.until, old.about, old.reason, old.actor, old.mac_key_id, old.mac)
    OR old.sealed > new.sealed
BEGIN SELECT raise(ABORT, 'entries of the shred log never change'); END;
CREATE TRIGGER "{shred_entries}_are_not_replaced" BEFORE INSERT ON "{shred_entries}"
WHEN EXISTS (SELECT 1 FROM "{shred_entries}" WHERE entry_id = new.entry_id)
    OR EXISTS (SELECT 1 FROM "{shred_entries}"
        WHERE scope_kind = new.scope_kind AND scope_id = new.scope_id AND scope_seq = new.scope_seq)
BEGIN SELECT raise(ABORT, 'entries of the shred log are never replaced'); END;
CREATE TRIGGER "{shred_log}_stays" BEFORE DELETE ON "{shred_log}"
BEGIN SELECT raise(ABORT, 'the chain of the shred log only grows'); END;
CREATE TRIGGER "{shred_log}_stays_as_it_is" BEFORE UPDATE ON "{shred_log}"
BEGIN SELECT raise(ABORT, 'the chain of the shred log only grows'); END;
CREATE TRIGGER "{shred_log}_is_not_replaced" BEFORE INSERT ON "{shred_log}"
WHEN EXISTS (SELECT 1 FROM "{shred_log}" WHERE seq = new.seq OR entry_id = new.entry_id)
BEGIN SELECT raise(ABORT, 'the chain of the shred log only grows'); END;
CREATE TRIGGER "{shred_log_head}_stays" BEFORE DELETE ON "{shred_log_head}"
BEGIN SELECT raise(ABORT, 'the end of the shred log is never deleted'); END;
CREATE TRIGGER "{shred_log_head}_is_not_replaced" BEFORE INSERT ON "{shred_log_head}"
WHEN EXISTS (SELECT 1 FROM "{shred_log_head}")
BEGIN SELECT raise(ABORT, 'the shred log has one end'); END;
CREATE TRIGGER "{shred_log_head}_goes_forward" BEFORE UPDATE ON "{shred_log_head}" WHEN new.seq < old.seq
BEGIN SELECT raise(ABORT, 'the shred log only grows'); END;
