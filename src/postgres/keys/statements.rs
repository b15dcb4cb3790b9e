//! The SQL of the key tables, with names filled in.

use crate::sql::keys::{self, TABLES, log, statements};
use crate::sql::{fill, qualified};

/// The function of the triggers of the key tables.
const REFUSE: &str = "keys_refuse";
const INDEXES: [&str; 7] = [
    "key_encryption_keys_one_active",
    "data_keys_by_kek",
    "key_scope_changes_by_scope",
    "key_scopes_due",
    "shred_entries_unsealed",
    "shred_entries_holds",
    "shred_entries_shreds",
];

/// The schema of the tables, and the prefix of their names. Both were checked before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) schema: Option<String>,
    pub(crate) prefix: String,
}

impl Names {
    pub(crate) fn table(&self, name: &str) -> String {
        qualified(self.schema.as_deref(), &format!("{}{name}", self.prefix))
    }

    /// Fills the names, quoted, into a SQL text. An index is in the schema of its table, and is named without it.
    pub(crate) fn fill(&self, sql: &str) -> String {
        fill(sql, &|name| {
            if let Some(index) = name.strip_prefix("index:") {
                return INDEXES.contains(&index).then(|| qualified(None, &format!("{}{index}", self.prefix)));
            }
            let is_known = match name.strip_prefix("located:") {
                Some(index) => INDEXES.contains(&index),
                None => name == REFUSE || TABLES.contains(&name),
            };
            is_known.then(|| self.table(name.strip_prefix("located:").unwrap_or(name)))
        })
    }
}

/// Makes the commit of the transaction durable, as `commit_durably` does, within a statement that says [`IS_DURABLE`].
const DURABLE: &str = "durable AS MATERIALIZED (
            SELECT set_config('synchronous_commit', 'on', true)
            WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
        )";

/// True of every row. It depends on none, so it is looked at once, whether there are rows or not.
const IS_DURABLE: &str = "(SELECT count(*) FROM durable) >= 0";

// The statements use LATERAL, with something that keeps the planner from turning it into a join. So each wanted row is
// one look into the index, however small the table was when the plan was made. Rows are read in the order of the
// arrays, which is the order of the locks. Arrays are wrapped in a SELECT, so that their lengths play no part when
// PostgreSQL decides whether to plan a prepared statement anew each time, which would take longer than running it.
statements! {
    namespace: keys::NAMESPACE,
    set_namespace: "INSERT INTO {key_namespace} (only_row, namespace, created_at) VALUES (1, $1, $2) ON CONFLICT DO \
        NOTHING",
    active_kek: keys::ACTIVE_KEK,
    keks: "SELECT {kek} FROM {key_encryption_keys} AS e WHERE e.kek_id = ANY ($1)",
    insert_kek: r#"INSERT INTO {key_encryption_keys} ({new_kek}) VALUES ($1, $2, $3, $4, $5, $6, $7, 'active')
        ON CONFLICT ("partition") WHERE state = 'active' DO NOTHING"#,
    kek_usage: "SELECT {kek}, count(k.key_id), min(coalesce(k.wrapped_at, k.created_at))
        FROM {key_encryption_keys} AS e LEFT JOIN {data_keys} AS k ON k.kek_id = e.kek_id AND k.state = 'live'
        GROUP BY e.kek_id ORDER BY e.created_at, e.kek_id",
    change_kek_state: keys::CHANGE_KEK_STATE,
    change_kek_wrapping: keys::CHANGE_KEK_WRAPPING,
    // This waits for transactions that have inserted a data key under it, and keeps out those that are about to.
    lock_kek: "SELECT {kek} FROM {key_encryption_keys} AS e WHERE e.kek_id = $1 FOR UPDATE",
    any_key_of_kek: "SELECT key_id FROM {data_keys} WHERE kek_id = $1 AND state = 'live' ORDER BY key_id LIMIT 1",
    count_keys_of_kek: keys::COUNT_KEYS_OF_KEK,
    // The locks keep out other rewraps, and shreds, until the batch is committed. Scopes are not read.
    lock_live_keys: "SELECT {key}
        FROM {data_keys} AS k
        WHERE k.state = 'live' AND k.kek_id = $1 AND k.key_id > $2
        ORDER BY k.key_id LIMIT $3
        FOR UPDATE OF k SKIP LOCKED",
    rewrap_keys: "UPDATE {data_keys} AS k SET wrapped_key = n.new, kek_id = $4, wrapped_at = $5
        FROM UNNEST((SELECT $1::uuid[]), (SELECT $2::bytea[]), (SELECT $3::bytea[])) AS n (key_id, old, new)
        WHERE k.key_id = n.key_id AND k.wrapped_key = n.old AND k.state = 'live'
            AND EXISTS (
                SELECT FROM {key_encryption_keys} AS e WHERE e.kek_id = $4 AND e.state <> 'retired' FOR KEY SHARE
            )
        RETURNING k.key_id, k.wrapped_key",
    scopes: "SELECT {key}, {scope}
        FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
        CROSS JOIN LATERAL (
            SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id OFFSET 0
        ) AS s
        LEFT JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = s.active_key_id OFFSET 0) AS k ON true",
    // The number 1000 tells PostgreSQL that few scopes are read, which it does not know of a parameter. Without it, a
    // plan for any values sorts the whole table. Keys are looked up for the chosen scopes alone.
    scopes_from: "SELECT s.scope_kind, s.scope_id, {state}, s.generation, k.version, k.kek_id
        FROM (
            SELECT * FROM (
                SELECT * FROM {key_scopes} AS s WHERE (s.scope_kind, s.scope_id) >= ($1, $2)
                ORDER BY s.scope_kind, s.scope_id LIMIT 1000
            ) AS s LIMIT $3
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.version, k.kek_id FROM {data_keys} AS k
            WHERE k.scope_kind = s.scope_kind AND k.scope_id = s.scope_id ORDER BY k.version DESC LIMIT 1
        ) AS k ON true
        ORDER BY s.scope_kind, s.scope_id",
    // The scope of the integrity key is read without a lock, because every append reads it.
    share_scopes: "SELECT {key}, {scope}
        FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
        CROSS JOIN LATERAL (
            SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id FOR SHARE
        ) AS s
        LEFT JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = s.active_key_id OFFSET 0) AS k ON true
        UNION ALL
        SELECT {key}, {scope}
        FROM UNNEST((SELECT $3::text[]), (SELECT $4::text[])) AS w (kind, id)
        CROSS JOIN LATERAL (
            SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id OFFSET 0
        ) AS s
        LEFT JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = s.active_key_id OFFSET 0) AS k ON true",
    lock_scopes: "SELECT s.* FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
        CROSS JOIN LATERAL (
            SELECT FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id FOR UPDATE
        ) AS s",
    // All is read first, in one snapshot. The key-encryption keys are locked as for `insert_keys`, and compared as they
    // are then. A scope that another transaction creates meanwhile is waited for, and left as it is.
    create_if_new: r#"WITH known AS MATERIALIZED (
            SELECT {key}, {scope}
            FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
            CROSS JOIN LATERAL (
                SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id OFFSET 0
            ) AS s
            LEFT JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = s.active_key_id OFFSET 0) AS k ON true
        ), others AS MATERIALIZED (
            SELECT NOT EXISTS (
                SELECT FROM UNNEST((SELECT $3::text[]), (SELECT $4::text[])) AS w (kind, id)
                CROSS JOIN LATERAL (
                    SELECT FROM {key_scopes} AS s WHERE s.scope_kind = w.kind AND s.scope_id = w.id OFFSET 0
                ) AS s
                UNION ALL
                SELECT FROM UNNEST((SELECT $3::text[]), (SELECT $4::text[])) AS w (kind, id)
                CROSS JOIN LATERAL (
                    SELECT FROM {data_keys} AS k WHERE k.scope_kind = w.kind AND k.scope_id = w.id LIMIT 1
                ) AS k
            ) AND EXISTS (SELECT FROM {key_namespace} AS n WHERE n.namespace = $9)
                AND (SELECT count(*) FROM known) = 1 AS are_new
        ), usable AS MATERIALIZED (
            SELECT e.kek_id
            FROM others, UNNEST(
                (SELECT $10::uuid[]), (SELECT $11::text[]), (SELECT $12::text[]), (SELECT $13::text[]),
                (SELECT $14::bytea[])
            ) AS w (kek_id, "partition", provider, master_key_id, wrapped_kek)
            CROSS JOIN LATERAL (
                SELECT e.kek_id FROM {key_encryption_keys} AS e
                WHERE e.kek_id = w.kek_id AND e."partition" = w."partition" AND e.provider = w.provider
                    AND e.master_key_id = w.master_key_id AND e.wrapped_kek = w.wrapped_kek AND e.state = 'active'
                FOR KEY SHARE
            ) AS e
            WHERE others.are_new
        ), new AS MATERIALIZED (
            SELECT n.* FROM UNNEST(
                (SELECT $3::text[]), (SELECT $4::text[]), (SELECT $5::uuid[]), (SELECT $6::uuid[]),
                (SELECT $7::bytea[]), (SELECT $8::timestamptz[])
            ) AS n (scope_kind, scope_id, key_id, kek_id, wrapped_key, created_at)
            WHERE (SELECT count(*) FROM usable) = cardinality($10::uuid[])
        ), created AS (
            INSERT INTO {key_scopes} (scope_kind, scope_id, state, generation, active_key_id)
            SELECT n.scope_kind, n.scope_id, 'live', 1, n.key_id FROM new AS n
            ORDER BY n.scope_kind COLLATE "C", n.scope_id COLLATE "C"
            ON CONFLICT DO NOTHING
            RETURNING active_key_id
        ), keyed AS (
            INSERT INTO {data_keys} (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
            SELECT n.key_id, n.scope_kind, n.scope_id, 1, n.kek_id, n.wrapped_key, n.created_at, 'live'
            FROM new AS n JOIN created ON created.active_key_id = n.key_id
            RETURNING key_id
        )
        SELECT known.*, (SELECT count(*) FROM keyed), (SELECT count(*) FROM usable)
        FROM (SELECT) AS one LEFT JOIN known ON true"#,
    create_scopes: r#"INSERT INTO {key_scopes} (scope_kind, scope_id, state, generation)
        SELECT w.kind, w.id, 'live', 1 FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
        ORDER BY w.kind COLLATE "C", w.id COLLATE "C"
        ON CONFLICT DO NOTHING"#,
    // No key is inserted under a key-encryption key that was retired meanwhile: retiring locks its row as well.
    insert_keys: "WITH usable AS (
            SELECT e.kek_id FROM {key_encryption_keys} AS e
            WHERE e.kek_id = ANY ($5) AND e.state <> 'retired' FOR KEY SHARE
        ), new AS (
            SELECT n.* FROM UNNEST(
                (SELECT $1::uuid[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::bigint[]),
                (SELECT $5::uuid[]), (SELECT $6::bytea[]), (SELECT $7::timestamptz[])
            ) AS n (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at)
            JOIN usable USING (kek_id)
        ), activated AS (
            UPDATE {key_scopes} AS s SET active_key_id = n.key_id
            FROM new AS n WHERE s.scope_kind = n.scope_kind AND s.scope_id = n.scope_id AND s.state = 'live'
            RETURNING s.active_key_id
        )
        INSERT INTO {data_keys} (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
        SELECT n.key_id, n.scope_kind, n.scope_id, n.version, n.kek_id, n.wrapped_key, n.created_at, 'live'
        FROM new AS n JOIN activated ON activated.active_key_id = n.key_id
        RETURNING key_id",
    data_keys: "SELECT {key}, {state} FROM UNNEST((SELECT $1::uuid[])) AS w (key_id)
        CROSS JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = w.key_id OFFSET 0) AS k
        CROSS JOIN LATERAL (
            SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = k.scope_kind AND s.scope_id = k.scope_id OFFSET 0
        ) AS s",
    change_scope: &format!(
        "WITH {DURABLE}, changed AS (
            UPDATE {{key_scopes}} SET state = CASE WHEN $7 = 'withheld' THEN 'disabled' ELSE $7 END,
                withheld = ($7 = 'withheld'), generation = $8,
                active_key_id = CASE WHEN $7 = 'shredded' THEN NULL ELSE active_key_id END,
                due_at = CASE WHEN $6 = 'schedule' THEN $10 WHEN $6 IN ('cancel', 'shred', 'reopen') THEN NULL
                    ELSE due_at END
            WHERE scope_kind = $2 AND scope_id = $3
            RETURNING scope_kind, scope_id, CASE WHEN withheld THEN 'withheld' ELSE state END AS state, generation
        )
        INSERT INTO {{shred_entries}} (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation,
            keys, until, about, reason, actor, mac_key_id, mac)
        SELECT $1::uuid, scope_kind, scope_id, $4::bigint, $5::timestamptz, $6::text, state, generation, $9::text,
            $10::timestamptz, $11::uuid, $12::text, $13::text, $14::uuid, $15::bytea
        FROM changed WHERE {IS_DURABLE}"
    ),
    // The row of the scope changes with its keys, so that an append that waited for it notices. It says `disabled`
    // until the shred is recorded. If that never happens, and this is committed all the same, nothing is sealed for the
    // scope.
    destroy_keys: &format!(
        "WITH {DURABLE}, closed AS (
            UPDATE {{key_scopes}} SET state = 'disabled' WHERE scope_kind = $1 AND scope_id = $2 AND state = 'live'
        ) {} AND {IS_DURABLE} {}",
        keys::DESTROY_KEYS,
        keys::RETURNING_DESTROYED
    ),
    any_key_of_scope: keys::ANY_KEY_OF_SCOPE,
    keys_of_scope: keys::KEYS_OF_SCOPE,
    // One statement, so that all of it is of one state of the database. The rows come in any order.
    history: "SELECT {no_key_and_scope}, {entry}
        FROM (
            SELECT * FROM {shred_entries} AS e WHERE e.scope_kind = $1 AND e.scope_id = $2 ORDER BY e.scope_seq
        ) AS e
        UNION ALL
        SELECT {key}, {scope}, {no_entry}
        FROM (SELECT * FROM {key_scopes} AS s WHERE s.scope_kind = $1 AND s.scope_id = $2 OFFSET 0) AS s
        LEFT JOIN LATERAL (SELECT * FROM {data_keys} AS k WHERE k.key_id = s.active_key_id OFFSET 0) AS k ON true
        UNION ALL
        SELECT {key}, {no_scope}, {no_entry}
        FROM (
            SELECT * FROM {data_keys} AS k WHERE k.scope_kind = $1 AND k.scope_id = $2 ORDER BY k.version
        ) AS k",
    restored_scopes: keys::RESTORED_SCOPES,
    // The time is compared outside, because the planner takes the index in its order then. The rows are in that order.
    due_scopes: "SELECT * FROM (
            SELECT s.scope_kind, s.scope_id, s.due_at FROM {key_scopes} AS s
            WHERE s.due_at IS NOT NULL
                AND (s.due_at, s.scope_kind, s.scope_id)
                    > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, ''), coalesce($4::text, ''))
            ORDER BY s.due_at, s.scope_kind, s.scope_id LIMIT $5
        ) AS s WHERE s.due_at <= coalesce($1::timestamptz, 'infinity') ORDER BY s.due_at, s.scope_kind, s.scope_id",
    held_scopes: "SELECT DISTINCT e.scope_kind, e.scope_id FROM {shred_entries} AS e
        WHERE e.action = 'hold' AND (e.scope_kind, e.scope_id) > (coalesce($1::text, ''), coalesce($2::text, ''))
        ORDER BY e.scope_kind, e.scope_id LIMIT $3",
    log_head: &log::HEAD.replace("{unsealed}", "NOT e.sealed"),
    // The end is read in a later statement, whose snapshot is newer than the lock.
    lock_log_head: "SELECT h.seq FROM {shred_log_head} AS h FOR UPDATE",
    log_entries: "SELECT {entry}, l.seq, l.previous_hash, l.hash, l.mac_key_id, l.mac
        FROM {shred_log} AS l
        CROSS JOIN LATERAL (SELECT * FROM {shred_entries} AS e WHERE e.entry_id = l.entry_id OFFSET 0) AS e
        WHERE l.seq > $1 ORDER BY l.seq LIMIT $2",
    log_disagreements: "SELECT d.scope_kind, d.scope_id, d.problem FROM (
            SELECT e.scope_kind, e.scope_id,
                CASE WHEN k.key_id IS NULL THEN 'no_tombstone' ELSE 'key_came_back' END AS problem
            FROM {shred_entries} AS e
            CROSS JOIN LATERAL jsonb_array_elements(e.keys::jsonb) AS n (key)
            LEFT JOIN {data_keys} AS k ON k.key_id = (n.key ->> 0)::uuid
            WHERE e.action IN ('shred', 'adopt') AND (k.key_id IS NULL OR k.wrapped_key IS NOT NULL)
            {disagreements}
        ) AS d ORDER BY d.scope_kind, d.scope_id, d.problem LIMIT $1",
    unsealed_entries: "SELECT {entry} FROM {shred_entries} AS e
        WHERE NOT e.sealed AND (e.scope_kind, e.scope_id, e.scope_seq) > ($1::text, $2::text, $3::bigint)
        ORDER BY e.scope_kind, e.scope_id, e.scope_seq LIMIT $4",
    entries_of: "SELECT {entry} FROM UNNEST((SELECT $1::text[]), (SELECT $2::text[])) AS w (kind, id)
        CROSS JOIN LATERAL (
            SELECT * FROM {shred_entries} AS e WHERE e.scope_kind = w.kind AND e.scope_id = w.id OFFSET 0
        ) AS e
        ORDER BY e.scope_kind, e.scope_id, e.scope_seq",
    add_log_rows: "INSERT INTO {shred_log} (seq, entry_id, previous_hash, hash, mac_key_id, mac)
        SELECT * FROM UNNEST(
            (SELECT $1::bigint[]), (SELECT $2::uuid[]), (SELECT $3::bytea[]), (SELECT $4::bytea[]),
            (SELECT $5::uuid[]), (SELECT $6::bytea[])
        )",
    mark_sealed: "UPDATE {shred_entries} AS e SET sealed = true
        FROM UNNEST((SELECT $1::uuid[])) AS w (entry_id) WHERE e.entry_id = w.entry_id AND NOT e.sealed",
    move_log_head: log::MOVE_HEAD,
    add_entry: log::ADD_ENTRY,
    destroy_by_id: "UPDATE {data_keys} AS k SET wrapped_key = NULL, state = 'shredded', shredded_at = $2
        FROM UNNEST((SELECT $1::uuid[])) AS w (key_id)
        WHERE k.key_id = w.key_id AND k.wrapped_key IS NOT NULL",
    add_tombstone: log::ADD_TOMBSTONE,
    set_scope: log::SET_SCOPE,
}
