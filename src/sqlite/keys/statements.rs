//! The SQL of the key tables, with names filled in.

use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) namespace: Arc<str>,
    pub(crate) set_namespace: Arc<str>,
    pub(crate) take_write_lock: Arc<str>,
    pub(crate) active_kek: Arc<str>,
    pub(crate) keks: Arc<str>,
    pub(crate) install_kek: Arc<str>,
    pub(crate) kek_usage: Arc<str>,
    pub(crate) demote_kek: Arc<str>,
    pub(crate) promote_kek: Arc<str>,
    pub(crate) move_kek: Arc<str>,
    pub(crate) kek_state: Arc<str>,
    pub(crate) retire_kek: Arc<str>,
    pub(crate) rewrap_next: Arc<str>,
    pub(crate) rewrap_key: Arc<str>,
    pub(crate) scopes: Arc<str>,
    pub(crate) scopes_with_ids: Arc<str>,
    pub(crate) create_scopes: Arc<str>,
    pub(crate) insert_key: Arc<str>,
    pub(crate) activate_key: Arc<str>,
    pub(crate) data_keys: Arc<str>,
    pub(crate) change_scope: Arc<str>,
    pub(crate) add_change: Arc<str>,
    pub(crate) destroy_keys: Arc<str>,
    pub(crate) any_key_of_scope: Arc<str>,
    pub(crate) history_keys: Arc<str>,
    pub(crate) history_changes: Arc<str>,
}

impl Statements {
    /// The prefix was checked.
    pub(crate) fn new(p: &str) -> Self {
        const KEY: &str =
            "k.key_id, k.scope_kind, k.scope_id, k.version, k.kek_id, k.wrapped_key, k.created_at, k.shredded_at";
        const KEK: &str = r#"kek_id, "partition", provider, master_key_id, wrapped_kek, state, created_at, coalesce(wrapped_at, created_at)"#;
        const NEW_KEK: &str =
            r#"kek_id, "partition", provider, master_key_id, wrapped_kek, created_at, wrapped_at, state"#;
        Self {
            namespace: format!(r#"SELECT namespace FROM "{p}key_namespace""#).into(),
            // Not with ON CONFLICT, nor where scopes are created: the triggers that guard against REPLACE come first.
            set_namespace: format!(
                r#"INSERT INTO "{p}key_namespace" (only_row, namespace, created_at)
                   SELECT 1, ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM "{p}key_namespace")"#
            )
            .into(),
            // Changes no row, but a statement that could write takes the write lock when it starts.
            take_write_lock: format!(r#"UPDATE "{p}key_scopes" SET state = state WHERE scope_kind IS NULL"#).into(),
            active_kek: format!(r#"SELECT {KEK} FROM "{p}key_encryption_keys" WHERE "partition" = ?1 AND state = 'active'"#).into(),
            keks: format!(r#"SELECT {KEK} FROM "{p}key_encryption_keys" WHERE kek_id IN (SELECT value FROM json_each(?1))"#).into(),
            install_kek: format!(
                r#"INSERT INTO "{p}key_encryption_keys" ({NEW_KEK}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active'
                   WHERE NOT EXISTS (SELECT 1 FROM "{p}key_encryption_keys" WHERE "partition" = ?2 AND state = 'active')"#
            )
            .into(),
            kek_usage: format!(
                r#"SELECT {KEK},
                       (SELECT count(*) FROM "{p}data_keys" AS k WHERE k.kek_id = e.kek_id AND k.state = 'live'),
                       (SELECT min(coalesce(k.wrapped_at, k.created_at)) FROM "{p}data_keys" AS k
                        WHERE k.kek_id = e.kek_id AND k.state = 'live')
                   FROM "{p}key_encryption_keys" AS e ORDER BY created_at, kek_id"#
            )
            .into(),
            demote_kek: format!(
                r#"UPDATE "{p}key_encryption_keys" SET state = 'decrypt_only' WHERE kek_id = ?1 AND "partition" = ?2 AND state = 'active'"#
            )
            .into(),
            promote_kek: format!(r#"INSERT INTO "{p}key_encryption_keys" ({NEW_KEK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active')"#)
                .into(),
            move_kek: format!(
                r#"UPDATE "{p}key_encryption_keys" SET provider = ?4, master_key_id = ?5, wrapped_kek = ?6, wrapped_at = ?7
                   WHERE kek_id = ?1 AND master_key_id = ?2 AND wrapped_kek = ?3"#
            )
            .into(),
            kek_state: format!(
                r#"SELECT state, (SELECT count(*) FROM "{p}data_keys" AS k WHERE k.kek_id = e.kek_id AND k.state = 'live')
                   FROM "{p}key_encryption_keys" AS e WHERE kek_id = ?1"#
            )
            .into(),
            retire_kek: format!(r#"UPDATE "{p}key_encryption_keys" SET state = 'retired' WHERE kek_id = ?1"#).into(),
            rewrap_next: format!(
                r#"SELECT {KEY}, s.state FROM "{p}data_keys" AS k JOIN "{p}key_scopes" AS s USING (scope_kind, scope_id)
                   WHERE k.state = 'live' AND k.kek_id IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR k.key_id > ?2)
                   ORDER BY k.key_id LIMIT ?3"#
            )
            .into(),
            rewrap_key: format!(
                r#"UPDATE "{p}data_keys" SET wrapped_key = ?4, kek_id = ?5, wrapped_at = ?6
                   WHERE key_id = ?1 AND kek_id = ?2 AND wrapped_key = ?3 AND state = 'live'
                       AND EXISTS (SELECT 1 FROM "{p}key_encryption_keys" AS e WHERE e.kek_id = ?5 AND e.state <> 'retired')
                   RETURNING wrapped_key"#
            )
            .into(),
            scopes: format!(
                r#"SELECT {KEY}, s.scope_kind, s.scope_id, s.state, s.generation,
                       (SELECT max(version) FROM "{p}data_keys" AS d WHERE d.scope_kind = s.scope_kind AND d.scope_id = s.scope_id)
                   FROM json_each(?1) AS w
                   CROSS JOIN "{p}key_scopes" AS s ON s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1
                   LEFT JOIN "{p}data_keys" AS k ON k.key_id = s.active_key_id"#
            )
            .into(),
            // From one kind to the next, in the primary key: there are few kinds and many ids.
            scopes_with_ids: format!(
                r#"WITH RECURSIVE kinds (kind) AS (
                       SELECT min(scope_kind) FROM "{p}key_scopes"
                       UNION ALL
                       SELECT (SELECT min(s.scope_kind) FROM "{p}key_scopes" AS s WHERE s.scope_kind > kinds.kind)
                       FROM kinds WHERE kinds.kind IS NOT NULL
                   )
                   SELECT s.scope_kind, s.scope_id
                   FROM kinds CROSS JOIN json_each(?1) AS w CROSS JOIN "{p}key_scopes" AS s
                   WHERE s.scope_kind = kinds.kind AND s.scope_id = w.value"#
            )
            .into(),
            create_scopes: format!(
                r#"INSERT INTO "{p}key_scopes" (scope_kind, scope_id, state, generation)
                   SELECT DISTINCT w.value ->> 0, w.value ->> 1, 'live', 1 FROM json_each(?1) AS w WHERE NOT EXISTS
                       (SELECT 1 FROM "{p}key_scopes" AS s WHERE s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1)"#
            )
            .into(),
            insert_key: format!(
                r#"INSERT INTO "{p}data_keys" (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
                   SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'live'
                   WHERE EXISTS (SELECT 1 FROM "{p}key_encryption_keys" WHERE kek_id = ?5 AND state <> 'retired')"#
            )
            .into(),
            activate_key: format!(
                r#"UPDATE "{p}key_scopes" SET active_key_id = ?1 WHERE scope_kind = ?2 AND scope_id = ?3 AND state = 'live'"#
            )
            .into(),
            data_keys: format!(
                r#"SELECT {KEY}, s.state FROM "{p}data_keys" AS k JOIN "{p}key_scopes" AS s USING (scope_kind, scope_id)
                   WHERE k.key_id IN (SELECT value FROM json_each(?1))"#
            )
            .into(),
            change_scope: format!(
                r#"UPDATE "{p}key_scopes" SET state = ?3, generation = ?4,
                       active_key_id = CASE WHEN ?3 = 'shredded' THEN NULL ELSE active_key_id END
                   WHERE scope_kind = ?1 AND scope_id = ?2"#
            )
            .into(),
            add_change: format!(
                r#"INSERT INTO "{p}key_scope_changes" (scope_kind, scope_id, action, state, generation, reason, changed_at, actor)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"#
            )
            .into(),
            destroy_keys: format!(
                r#"UPDATE "{p}data_keys" SET wrapped_key = NULL, state = 'shredded', shredded_at = ?3
                   WHERE scope_kind = ?1 AND scope_id = ?2 AND state = 'live' RETURNING key_id, version"#
            )
            .into(),
            any_key_of_scope: format!(
                r#"SELECT 1 FROM "{p}data_keys" WHERE scope_kind = ?1 AND scope_id = ?2 AND wrapped_key IS NOT NULL LIMIT 1"#
            )
            .into(),
            history_keys: format!(r#"SELECT {KEY} FROM "{p}data_keys" AS k WHERE scope_kind = ?1 AND scope_id = ?2 ORDER BY version"#)
                .into(),
            history_changes: format!(
                r#"SELECT action, state, generation, reason, changed_at, actor FROM "{p}key_scope_changes"
                   WHERE scope_kind = ?1 AND scope_id = ?2 ORDER BY change_id"#
            )
            .into(),
        }
    }
}
