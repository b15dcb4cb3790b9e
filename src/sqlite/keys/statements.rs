//! The SQL of the key tables, with names filled in.

use crate::sql::keys::{self, log, statements};

statements! {
    namespace: keys::NAMESPACE,
    // This does not use ON CONFLICT, and neither does the statement that creates scopes: the triggers that guard
    // against REPLACE would run first.
    set_namespace: "INSERT INTO {key_namespace} (only_row, namespace, created_at)
        SELECT 1, ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM {key_namespace})",
    // This changes no row. A statement that could write takes the write lock when it starts.
    take_write_lock: "UPDATE {key_scopes} SET state = state WHERE scope_kind IS NULL",
    active_kek: keys::ACTIVE_KEK,
    keks: "SELECT {kek} FROM {key_encryption_keys} AS e
        WHERE e.kek_id IN (SELECT value FROM json_each(?1))",
    insert_kek: r#"INSERT INTO {key_encryption_keys} ({new_kek}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active'
        WHERE NOT EXISTS (SELECT 1 FROM {key_encryption_keys} WHERE "partition" = ?2 AND state = 'active')"#,
    kek_usage: "SELECT {kek},
            (SELECT count(*) FROM {data_keys} AS k WHERE k.kek_id = e.kek_id AND k.state = 'live'),
            (SELECT min(coalesce(k.wrapped_at, k.created_at)) FROM {data_keys} AS k
             WHERE k.kek_id = e.kek_id AND k.state = 'live')
        FROM {key_encryption_keys} AS e ORDER BY e.created_at, e.kek_id",
    change_kek_state: keys::CHANGE_KEK_STATE,
    change_kek_wrapping: keys::CHANGE_KEK_WRAPPING,
    count_keys_of_kek: keys::COUNT_KEYS_OF_KEK,
    lock_live_keys: "SELECT {key}, {state} FROM {data_keys} AS k JOIN {key_scopes} AS s USING (scope_kind, scope_id)
        WHERE k.state = 'live' AND k.kek_id IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR k.key_id > ?2)
        ORDER BY k.key_id LIMIT ?3",
    rewrap_key: "UPDATE {data_keys} SET wrapped_key = ?4, kek_id = ?5, wrapped_at = ?6
        WHERE key_id = ?1 AND kek_id = ?2 AND wrapped_key = ?3 AND state = 'live'
            AND EXISTS (SELECT 1 FROM {key_encryption_keys} AS e WHERE e.kek_id = ?5 AND e.state <> 'retired')
        RETURNING wrapped_key",
    scopes: "SELECT {key}, {scope}
        FROM json_each(?1) AS w
        CROSS JOIN {key_scopes} AS s ON s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1
        LEFT JOIN {data_keys} AS k ON k.key_id = s.active_key_id",
    scopes_from: "SELECT s.scope_kind, s.scope_id, {state}, s.generation, k.version, k.kek_id
        FROM {key_scopes} AS s
        LEFT JOIN {data_keys} AS k
            ON k.scope_kind = s.scope_kind AND k.scope_id = s.scope_id AND k.version = {last_version}
        WHERE (s.scope_kind, s.scope_id) >= (?1, ?2)
        ORDER BY s.scope_kind, s.scope_id LIMIT ?3",
    create_scopes: "INSERT INTO {key_scopes} (scope_kind, scope_id, state, generation)
        SELECT DISTINCT w.value ->> 0, w.value ->> 1, 'live', 1 FROM json_each(?1) AS w WHERE NOT EXISTS
            (SELECT 1 FROM {key_scopes} AS s WHERE s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1)",
    insert_key: "INSERT INTO {data_keys} (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'live'
        WHERE EXISTS (SELECT 1 FROM {key_encryption_keys} WHERE kek_id = ?5 AND state <> 'retired')",
    activate_key: "UPDATE {key_scopes} SET active_key_id = ?1
        WHERE scope_kind = ?2 AND scope_id = ?3 AND state = 'live'",
    data_keys: "SELECT {key}, {state} FROM {data_keys} AS k JOIN {key_scopes} AS s USING (scope_kind, scope_id)
        WHERE k.key_id IN (SELECT value FROM json_each(?1))",
    change_scope: "UPDATE {key_scopes} SET state = CASE WHEN ?4 = 'withheld' THEN 'disabled' ELSE ?4 END,
            withheld = (?4 = 'withheld'), generation = ?5,
            active_key_id = CASE WHEN ?4 = 'shredded' THEN NULL ELSE active_key_id END,
            due_at = CASE WHEN ?3 = 'schedule' THEN ?6 WHEN ?3 IN ('cancel', 'shred', 'reopen') THEN NULL
                ELSE due_at END
        WHERE scope_kind = ?1 AND scope_id = ?2",
    add_entry: log::ADD_ENTRY,
    destroy_keys: &format!("{} {}", keys::DESTROY_KEYS, keys::RETURNING_DESTROYED),
    any_key_of_scope: keys::ANY_KEY_OF_SCOPE,
    keys_of_scope: keys::KEYS_OF_SCOPE,
    // One statement, so that all of it is of one state of the database.
    history: "SELECT {no_key_and_scope}, {entry} FROM {shred_entries} AS e WHERE e.scope_kind = ?1 AND e.scope_id = ?2
        UNION ALL
        SELECT {key}, {scope}, {no_entry}
        FROM {key_scopes} AS s LEFT JOIN {data_keys} AS k ON k.key_id = s.active_key_id
        WHERE s.scope_kind = ?1 AND s.scope_id = ?2
        UNION ALL
        SELECT {key}, {no_scope}, {no_entry} FROM {data_keys} AS k WHERE k.scope_kind = ?1 AND k.scope_id = ?2",
    restored_scopes: keys::RESTORED_SCOPES,
    // The time is compared outside, because the planner takes the index in its order then. The rows are in that order.
    due_scopes: "SELECT * FROM (
            SELECT s.scope_kind, s.scope_id, s.due_at FROM {key_scopes} AS s
            WHERE s.due_at IS NOT NULL
                AND (s.due_at, s.scope_kind, s.scope_id) > (coalesce(?2, ''), coalesce(?3, ''), coalesce(?4, ''))
            ORDER BY s.due_at, s.scope_kind, s.scope_id LIMIT ?5
        ) AS s
        WHERE s.due_at <= coalesce(?1, '9999-12-31T23:59:59.999999Z')
        ORDER BY s.due_at, s.scope_kind, s.scope_id",
    held_scopes: "SELECT DISTINCT e.scope_kind, e.scope_id FROM {shred_entries} AS e
        WHERE e.action = 'hold' AND (e.scope_kind, e.scope_id) > (coalesce(?1, ''), coalesce(?2, ''))
        ORDER BY e.scope_kind, e.scope_id LIMIT ?3",
    log_head: &log::HEAD.replace("{unsealed}", "e.sealed = 0"),
    log_entries: "SELECT {entry}, l.seq, l.previous_hash, l.hash, l.mac_key_id, l.mac
        FROM {shred_log} AS l CROSS JOIN {shred_entries} AS e ON e.entry_id = l.entry_id
        WHERE l.seq > ?1 ORDER BY l.seq LIMIT ?2",
    log_disagreements: "SELECT d.scope_kind, d.scope_id, d.problem FROM (
            SELECT e.scope_kind, e.scope_id,
                CASE WHEN k.key_id IS NULL THEN 'no_tombstone' ELSE 'key_came_back' END AS problem
            FROM {shred_entries} AS e CROSS JOIN json_each(e.keys) AS n
            LEFT JOIN {data_keys} AS k ON k.key_id = n.value ->> 0
            WHERE e.action IN ('shred', 'adopt') AND (k.key_id IS NULL OR k.wrapped_key IS NOT NULL)
            {disagreements}
        ) AS d ORDER BY d.scope_kind, d.scope_id, d.problem LIMIT $1",
    unsealed_entries: "SELECT {entry} FROM {shred_entries} AS e
        WHERE e.sealed = 0 AND (e.scope_kind, e.scope_id, e.scope_seq) > (?1, ?2, ?3)
        ORDER BY e.scope_kind, e.scope_id, e.scope_seq LIMIT ?4",
    entries_of: "SELECT {entry} FROM json_each(?1) AS w
        CROSS JOIN {shred_entries} AS e ON e.scope_kind = w.value ->> 0 AND e.scope_id = w.value ->> 1
        ORDER BY e.scope_kind, e.scope_id, e.scope_seq",
    add_log_row: "INSERT INTO {shred_log} (seq, entry_id, previous_hash, hash, mac_key_id, mac)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    mark_sealed: "UPDATE {shred_entries} SET sealed = 1 WHERE entry_id = ?1 AND sealed = 0",
    move_log_head: log::MOVE_HEAD,
    destroy_by_id: "UPDATE {data_keys} SET wrapped_key = NULL, state = 'shredded', shredded_at = ?2
        WHERE key_id = ?1 AND wrapped_key IS NOT NULL",
    add_tombstone: log::ADD_TOMBSTONE,
    set_scope: log::SET_SCOPE,
}
