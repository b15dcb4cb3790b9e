-- The shred log: every decision about a scope, authenticated, in a chain. Older code writes no entries, so it must stop.

-- A disabled scope whose values are shown as if they were shredded, until a schedule comes due or is cancelled.
ALTER TABLE {key_scopes} ADD COLUMN withheld BOOLEAN NOT NULL DEFAULT false;
-- When a scheduled shred comes due: a copy of what the entries say, for a look into an index.
ALTER TABLE {key_scopes} ADD COLUMN due_at TIMESTAMPTZ;
ALTER TABLE {key_scopes} ADD CHECK (NOT withheld OR state = 'disabled');
CREATE INDEX {index:key_scopes_due} ON {key_scopes} (due_at, scope_kind, scope_id) WHERE due_at IS NOT NULL;

-- Decisions. Those of a scope are numbered from 1, and the MAC of each covers the one before it.
CREATE TABLE {shred_entries} (
    entry_id   UUID        PRIMARY KEY,
    scope_kind TEXT        COLLATE "C" NOT NULL,
    scope_id   TEXT        COLLATE "C" NOT NULL,
    scope_seq  BIGINT      NOT NULL CHECK (scope_seq >= 1),
    decided_at TIMESTAMPTZ NOT NULL,
    action     TEXT        NOT NULL
        CHECK (action IN ('shred', 'reopen', 'disable', 'enable', 'hold', 'release', 'schedule', 'cancel', 'fork',
            'adopt')),
    state      TEXT        NOT NULL CHECK (state IN ('live', 'disabled', 'withheld', 'shredded')),
    generation BIGINT      NOT NULL CHECK (generation >= 1),
    -- The keys that were destroyed, as JSON: [[key id, version, key-encryption key, created at], ...]
    keys       TEXT        NOT NULL DEFAULT '[]',
    -- When a hold ends, or a schedule comes due.
    until      TIMESTAMPTZ,
    -- The entry of the hold that is released, or of the schedule that is cancelled or was carried out.
    about      UUID,
    reason     TEXT        NOT NULL,
    actor      TEXT,
    -- The integrity key under which the MAC was made. Both are NULL for changes from before there was a log.
    mac_key_id UUID,
    mac        BYTEA,
    -- Does the chain have it?
    sealed     BOOLEAN     NOT NULL DEFAULT false,
    UNIQUE (scope_kind, scope_id, scope_seq),
    FOREIGN KEY (scope_kind, scope_id) REFERENCES {key_scopes} (scope_kind, scope_id),
    CHECK ((mac IS NULL) = (mac_key_id IS NULL))
);

CREATE INDEX {index:shred_entries_unsealed} ON {shred_entries} (scope_kind, scope_id, scope_seq) WHERE NOT sealed;
CREATE INDEX {index:shred_entries_holds} ON {shred_entries} (scope_kind, scope_id, scope_seq) WHERE action = 'hold';
CREATE INDEX {index:shred_entries_shreds} ON {shred_entries} (scope_kind, scope_id, scope_seq)
    WHERE action IN ('shred', 'adopt');

-- The chain of a namespace's entries.
CREATE TABLE {shred_log} (
    seq           BIGINT PRIMARY KEY CHECK (seq >= 1),
    entry_id      UUID   NOT NULL UNIQUE REFERENCES {shred_entries} (entry_id),
    previous_hash BYTEA  NOT NULL,
    hash          BYTEA  NOT NULL,
    mac_key_id    UUID   NOT NULL,
    mac           BYTEA  NOT NULL
);

-- One row: the end of the chain. Whoever adds to the chain locks it.
CREATE TABLE {shred_log_head} (
    only_row INT    PRIMARY KEY CHECK (only_row = 1),
    seq      BIGINT NOT NULL CHECK (seq >= 0),
    hash     BYTEA  NOT NULL
);
INSERT INTO {shred_log_head} (only_row, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));

-- What was changed before there was a log, without a MAC. Nothing acts on it until it is adopted.
INSERT INTO {shred_entries} (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation, reason, actor)
    SELECT gen_random_uuid(), scope_kind, scope_id,
        row_number() OVER (PARTITION BY scope_kind, scope_id ORDER BY change_id),
        changed_at, action, state, generation, reason, actor
    FROM {key_scope_changes};
DROP TABLE {key_scope_changes};

CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON {shred_entries}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('entries of the shred log are never deleted');
CREATE TRIGGER rows_stay_as_they_are BEFORE UPDATE ON {shred_entries}
    FOR EACH ROW WHEN ((NEW.entry_id, NEW.scope_kind, NEW.scope_id, NEW.scope_seq, NEW.decided_at, NEW.action, NEW.state,
            NEW.generation, NEW.keys, NEW.until, NEW.about, NEW.reason, NEW.actor, NEW.mac_key_id, NEW.mac)
        IS DISTINCT FROM (OLD.entry_id, OLD.scope_kind, OLD.scope_id, OLD.scope_seq, OLD.decided_at, OLD.action, OLD.state,
            OLD.generation, OLD.keys, OLD.until, OLD.about, OLD.reason, OLD.actor, OLD.mac_key_id, OLD.mac)
        OR (OLD.sealed AND NOT NEW.sealed))
    EXECUTE FUNCTION {keys_refuse}('entries of the shred log never change');
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {shred_log}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('the chain of the shred log only grows');
CREATE TRIGGER row_stays BEFORE DELETE OR TRUNCATE ON {shred_log_head}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('the end of the shred log is never deleted');
CREATE TRIGGER goes_forward BEFORE UPDATE ON {shred_log_head}
    FOR EACH ROW WHEN (NEW.seq < OLD.seq)
    EXECUTE FUNCTION {keys_refuse}('the shred log only grows');
