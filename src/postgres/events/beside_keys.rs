//! Appends and reads that check and read keys in the same statement.
//!
//! # The check
//!
//! It is the first part of an append, and the events are inserted from its row. So PostgreSQL locks the scopes, and
//! waits for whoever holds them, before it draws a position or takes a version. Where it waited, it compares the row of
//! the scope as the other transaction left it. Every change that takes a key away locks the row of its scope and writes
//! it. So the row of the key may be the one in the statement's snapshot. For several scopes, the check is an aggregate
//! over all rows, and no `EXISTS`: that would stop at the first row, and lock no other.
//!
//! A statement that waited for a scope looks for known event ids in the snapshot from before. So of two appends of one
//! event to two streams, both may pass where no unique constraint forbids it.
//!
//! # The read
//!
//! Both of its parts see one snapshot. The rows of keys come in the columns of events, because each further column
//! costs time for every event. The rows are not sorted by the database, which would sort payloads.

use super::{PostgresStore, append};
use crate::error::Result;
use crate::event::{AggregateRef, Appended, ExpectedVersion, NewEvent, Stream, VersionRange};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{DataKeyRecord, KeyTableNames};
use crate::sql::events::{self, KeyInEvent};
use crate::sql::keys::data_key_of_scope;
use crate::sql::{SqlRow as _, event_database as database, query};
use crate::store::BesideKeys;
use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The statements beside one pair of key tables.
#[derive(Debug)]
pub(super) struct Statements {
    /// Appends one event that is sealed for one scope.
    pub(super) append_one: Arc<str>,
    pub(super) append: Arc<str>,
    pub(super) read_stream: Arc<str>,
}

/// The statements that were made so far. Processes have one pair of key tables, or very few.
pub(super) type Made = Arc<Mutex<HashMap<KeyTableNames, Arc<Statements>>>>;

/// Checks one scope. Its parameters are those of [`Guard::bind`], as single values.
const GUARD_ONE: &str = "guard AS MATERIALIZED (
        SELECT coalesce((
            SELECT s.state = 'live' AND NOT s.withheld AND s.active_key_id = [key_id]::uuid AND [integrity] AND EXISTS (
                SELECT FROM [data_keys] AS k WHERE k.key_id = [key_id]::uuid AND k.scope_kind = [kind]::text
                    AND k.scope_id = [id]::text AND k.version = [version]::bigint AND k.kek_id = [kek_id]::uuid
                    AND k.wrapped_key = [wrapped]::bytea AND k.shredded_at IS NULL
            ) AND NOT EXISTS (
                SELECT FROM [data_keys] AS k WHERE k.scope_kind = [kind]::text AND k.scope_id = [id]::text
                    AND k.version > [version]::bigint
            )
            FROM (
                SELECT s.state, s.withheld, s.active_key_id FROM [key_scopes] AS s
                WHERE s.scope_kind = [kind]::text AND s.scope_id = [id]::text FOR SHARE
            ) AS s
        ), false) AS held
    )";

/// Checks several scopes. Its parameters are those of [`Guard::bind`], as arrays.
const GUARD: &str = "guard AS MATERIALIZED (
        SELECT [integrity] AND cardinality([kind]::text[]) = count(*) FILTER (
                WHERE s.state = 'live' AND NOT s.withheld AND s.active_key_id = w.key_id AND k.is_the_same
            ) AS held
        FROM UNNEST(
            (SELECT [kind]::text[]), (SELECT [id]::text[]), (SELECT [key_id]::uuid[]), (SELECT [version]::bigint[]),
            (SELECT [kek_id]::uuid[]), (SELECT [wrapped]::bytea[])
        ) AS w (kind, id, key_id, version, kek_id, wrapped)
        CROSS JOIN LATERAL (
            SELECT s.state, s.withheld, s.active_key_id FROM [key_scopes] AS s
            WHERE s.scope_kind = w.kind AND s.scope_id = w.id FOR SHARE
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.scope_kind = w.kind AND k.scope_id = w.id AND k.version = w.version AND k.kek_id = w.kek_id
                AND k.wrapped_key = w.wrapped AND k.shredded_at IS NULL AND k.version = (
                    SELECT max(d.version) FROM [data_keys] AS d WHERE d.scope_kind = w.kind AND d.scope_id = w.id
                ) AS is_the_same
            FROM [data_keys] AS k WHERE k.key_id = s.active_key_id OFFSET 0
        ) AS k ON true
    )";

/// Checks the integrity key, whose scope is not locked.
const INTEGRITY: &str = "EXISTS (
            SELECT FROM [key_scopes] AS s WHERE s.scope_kind = '[i_kind]' AND s.scope_id = '[i_id]'
                AND s.state = 'live' AND NOT s.withheld AND s.active_key_id = [i_key_id]::uuid
        ) AND EXISTS (
            SELECT FROM [data_keys] AS k WHERE k.key_id = [i_key_id]::uuid AND k.scope_kind = '[i_kind]'
                AND k.scope_id = '[i_id]' AND k.version = [i_version]::bigint AND k.kek_id = [i_kek_id]::uuid
                AND k.wrapped_key = [i_wrapped]::bytea AND k.shredded_at IS NULL
        ) AND NOT EXISTS (
            SELECT FROM [data_keys] AS k WHERE k.scope_kind = '[i_kind]' AND k.scope_id = '[i_id]'
                AND k.version > [i_version]::bigint
        )";

/// Reads a stream and the rows of keys. A row of a key has no position. [`KeyInEvent`] says which column is which.
const READ_STREAM: &str = "
    SELECT {columns}, NULL::uuid AS kek_id, NULL::timestamptz AS shredded_at
    FROM {events} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2
        AND {aggregate_version} >= $3 AND {aggregate_version} <= $4
    UNION ALL
    SELECT NULL, k.version, k.key_id, k.scope_kind, NULL, k.wrapped_key, k.scope_id,
        CASE WHEN s.withheld THEN 'withheld' ELSE s.state END, NULL, NULL, k.created_at, k.kek_id, k.shredded_at
    FROM UNNEST((SELECT $5::uuid[])) AS w (key_id)
    CROSS JOIN LATERAL (SELECT * FROM [data_keys] AS k WHERE k.key_id = w.key_id OFFSET 0) AS k
    CROSS JOIN LATERAL (
        SELECT * FROM [key_scopes] AS s WHERE s.scope_kind = k.scope_kind AND s.scope_id = k.scope_id OFFSET 0
    ) AS s";

/// Fills the names of the key tables in, and the numbers of the parameters, from the first behind the events on.
fn fill(sql: &str, keys: &KeyTableNames, first: usize) -> String {
    let names =
        ["kind", "id", "key_id", "version", "kek_id", "wrapped", "i_key_id", "i_version", "i_kek_id", "i_wrapped"];
    let mut filled = sql.replace("[integrity]", INTEGRITY);
    for (number, name) in (first..).zip(names) {
        filled = filled.replace(&format!("[{name}]"), &format!("${number}"));
    }
    let integrity = KeyScope::integrity();
    filled
        .replace("[i_kind]", integrity.kind())
        .replace("[i_id]", integrity.id())
        .replace("[key_scopes]", keys.key_scopes())
        .replace("[data_keys]", keys.data_keys())
}

impl Statements {
    fn new(store: &PostgresStore, keys: &KeyTableNames) -> Self {
        let tables = &store.tables;
        let first = if tables.index_seals { 15 } else { 13 };
        let append = |one, guard| Arc::from(tables.fill(&append::append(tables, one, Some(&fill(guard, keys, first)))));
        Self {
            append_one: append(true, GUARD_ONE),
            append: append(false, GUARD),
            read_stream: tables.fill(&fill(READ_STREAM, keys, first)).into(),
        }
    }
}

/// The keys that an append compares.
pub(super) struct Guard<'k> {
    /// The keys whose scopes are locked, in ascending order of scope.
    locked: Vec<&'k DataKeyRecord>,
    integrity: &'k DataKeyRecord,
    sql: Arc<Statements>,
}

impl<'k> Guard<'k> {
    /// `None` if the integrity key is not among the keys, or a row has no wrapped key.
    fn new(active: &'k [Arc<DataKeyRecord>], sql: Arc<Statements>) -> Option<Self> {
        let (integrity, mut locked): (Vec<_>, Vec<_>) =
            active.iter().map(Arc::as_ref).partition(|key| key.scope.is_integrity());
        locked.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        let [integrity] = integrity[..] else { return None };
        active.iter().all(|key| key.wrapped_key.is_some()).then_some(Self { locked, integrity, sql })
    }

    /// May an event and its key be bound as single values? Arrays can hold any number of both.
    pub(super) fn is_one(&self) -> bool {
        self.locked.len() == 1
    }

    /// The statement for `one` event and its key, or for arrays.
    pub(super) fn append(&self, one: bool) -> &Arc<str> {
        if one { &self.sql.append_one } else { &self.sql.append }
    }

    /// Binds the keys behind the events, as the [statement](Self::append) takes them.
    pub(super) fn bind<'q>(
        &self,
        append: Query<'q, Postgres, PgArguments>,
        one: bool,
    ) -> Query<'q, Postgres, PgArguments> {
        let append = match self.locked[..] {
            [key] if one => append
                .bind(key.scope.kind())
                .bind(key.scope.id())
                .bind(key.key_id.0)
                .bind(i64::from(key.version))
                .bind(key.kek_id.0)
                .bind(key.wrapped_key.as_deref()),
            _ => append
                .bind(self.locked.iter().map(|key| key.scope.kind()).collect::<Vec<_>>())
                .bind(self.locked.iter().map(|key| key.scope.id()).collect::<Vec<_>>())
                .bind(self.locked.iter().map(|key| key.key_id.0).collect::<Vec<_>>())
                .bind(self.locked.iter().map(|key| i64::from(key.version)).collect::<Vec<_>>())
                .bind(self.locked.iter().map(|key| key.kek_id.0).collect::<Vec<_>>())
                .bind(self.locked.iter().map(|key| key.wrapped_key.as_deref()).collect::<Vec<_>>()),
        };
        append
            .bind(self.integrity.key_id.0)
            .bind(i64::from(self.integrity.version))
            .bind(self.integrity.kek_id.0)
            .bind(self.integrity.wrapped_key.as_deref())
    }
}

impl PostgresStore {
    /// The statements by name, so that their plans can be read.
    #[cfg(feature = "internals")]
    pub(crate) fn statements_beside_by_name(&self, keys: &KeyTableNames) -> Vec<(&'static str, Arc<str>)> {
        let made = self.statements_beside(keys);
        let all = [("append_one", &made.append_one), ("append", &made.append), ("read_stream", &made.read_stream)];
        all.map(|(name, sql)| (name, Arc::clone(sql))).to_vec()
    }

    fn statements_beside(&self, keys: &KeyTableNames) -> Arc<Statements> {
        let mut made = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get(keys) {
            Some(statements) => Arc::clone(statements),
            None => {
                let statements = Arc::new(Statements::new(self, keys));
                made.insert(keys.clone(), Arc::clone(&statements));
                statements
            }
        }
    }
}

#[async_trait]
impl BesideKeys for PostgresStore {
    type Tx = PgConnection;

    async fn append_under(
        &self,
        tx: &mut PgConnection,
        keys: &KeyTableNames,
        active: &[Arc<DataKeyRecord>],
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Option<Appended>> {
        match Guard::new(active, self.statements_beside(keys)) {
            Some(guard) => self.append_if(tx, aggregate, expected, events, Some(&guard)).await,
            None => Ok(None),
        }
    }

    async fn read_stream_and_keys(
        &self,
        tx: &mut PgConnection,
        keys: &KeyTableNames,
        key_ids: &[KeyId],
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<(Stream, Vec<DataKeyRecord>)> {
        let rows = query(&self.statements_beside(keys).read_stream)
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(range.from.unwrap_or(0))
            .bind(range.to.unwrap_or(i64::MAX))
            .bind(key_ids.iter().map(|key_id| key_id.0).collect::<Vec<Uuid>>())
            .fetch_all(tx)
            .await
            .map_err(database("reading a stream and its keys"))?;
        let (mut of_events, mut of_keys) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match row.optional_number(0)? {
                Some(_) => of_events.push(row),
                None => of_keys.push(data_key_of_scope(&KeyInEvent(&row))?),
            }
        }
        let mut stream = events::stream(&of_events, aggregate)?;
        stream.events.sort_unstable_by_key(|event| event.aggregate_version);
        stream.last_version = stream.events.last().map(|event| event.aggregate_version);
        Ok((stream, of_keys))
    }
}
