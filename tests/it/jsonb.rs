//! An event store whose payloads are a column of type JSONB, on PostgreSQL, written by hand.
//!
//! JSONB prints JSON anew: it puts a blank behind colons, and shorter names first. So the header is not where it was
//! written, and a test of a payload's first bytes misses it.

use async_trait::async_trait;
use eventseal::conformance::{self, Database};
use eventseal::error::{InputFault, TransactionFault};
use eventseal::maintenance::{BackfillOptions, CensusOptions};
use eventseal::postgres::PostgresKeys;
use eventseal::store::{
    EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableWork, check_append,
};
use eventseal::{
    AggregateRef, AggregateVersion, Appended, Error, EventFilter, EventPage, EventStore, EventStoreExt,
    ExpectedVersion, GlobalPosition, KeyScope, Namespace, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    Stream, VersionRange, aggregate, event, subject,
};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row, query::Query};
use std::sync::Arc;
use support::{KEYRING, Postgres, caught};

const TABLE: &str = "
    CREATE TABLE log (
        position BIGSERIAL PRIMARY KEY, stream_type TEXT NOT NULL, stream_id TEXT NOT NULL, version BIGINT NOT NULL, id UUID NOT NULL UNIQUE,
        type TEXT NOT NULL, type_version INT NOT NULL, payload JSONB NOT NULL, metadata JSONB, trace TEXT, correlation TEXT, causation TEXT,
        at TIMESTAMPTZ NOT NULL, UNIQUE (stream_type, stream_id, version)
    )";

/// One writer at a time, so that no position is in flight when it is had.
const LOCK: i64 = 7;

/// What a mutant of the store does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    /// For the header, as a table of bytes does.
    LooksAtTheFirstBytes,
    TakesNoLock,
    AbortsAtConflicts,
    AppendsOutsideTransactions,
    ReplacesOutsideTransactions,
    InsertsOutsideTransactions,
}

#[derive(Clone, Copy, Debug)]
struct JsonbStore(Wrong);

fn failed(source: sqlx::Error) -> Error {
    Error::Database { operation: "a statement on the log", source: source.into() }
}

impl JsonbStore {
    fn query(self, sql: &str) -> Query<'static, sqlx::Postgres, PgArguments> {
        let with_header = match self.0 {
            Wrong::LooksAtTheFirstBytes => r#"starts_with(payload::text, '{"$seal": "')"#,
            _ => "coalesce(jsonb_typeof(payload -> '$seal') = 'string', false)",
        };
        sqlx::query(AssertSqlSafe(sql.replace("{with_header}", with_header)))
    }

    async fn events(
        self,
        tx: &mut PgConnection,
        query: Query<'static, sqlx::Postgres, PgArguments>,
    ) -> Result<Vec<PersistedEvent>> {
        query.fetch_all(tx).await.map_err(failed)?.iter().map(event_of).collect()
    }

    async fn insert(self, tx: &mut PgConnection, event: &PersistedEvent) -> Result<()> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let inserted = self
            .query(
                "INSERT INTO log (position, stream_type, stream_id, version, id, type, type_version, payload, metadata, trace, correlation,
                     causation, at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb, $10, $11, $12, $13)",
            )
            .bind(event.global_position.get())
            .bind(event.aggregate.aggregate_type().to_owned())
            .bind(event.aggregate.aggregate_id().to_owned())
            .bind(event.aggregate_version.get())
            .bind(event.event_id)
            .bind(event.stored_type.as_str().to_owned())
            .bind(i32::try_from(event.stored_version.get()).unwrap())
            .bind(text(&event.payload))
            .bind(event.metadata.as_deref().map(text))
            .bind(event.trace_id.clone())
            .bind(event.correlation_id.clone())
            .bind(event.causation_id.clone())
            .bind(event.created_at);
        inserted.execute(tx).await.map(drop).map_err(failed)
    }

    fn needs_transaction(self, tx: &PgConnection, unless: Wrong) -> Result<()> {
        if tx.is_in_transaction() || self.0 == unless {
            Ok(())
        } else {
            Err(Error::Transaction(TransactionFault::NotInTransaction { operation: "writing" }))
        }
    }

    /// Refuses what would abort the transaction.
    async fn check_ids(self, tx: &mut PgConnection, ids: Vec<uuid::Uuid>) -> Result<()> {
        let known = self
            .query("SELECT id FROM log WHERE id = ANY ($1) LIMIT 1")
            .bind(ids)
            .fetch_optional(tx)
            .await
            .map_err(failed)?;
        known.map_or(Ok(()), |row| Err(Error::DuplicateEventId { event_id: row.get(0) }))
    }
}

fn event_of(row: &PgRow) -> Result<PersistedEvent> {
    let bytes = |name: &str| row.get::<Option<String>, _>(name).map(String::into_bytes);
    let version = u32::try_from(row.get::<i32, _>("type_version")).unwrap();
    let mut event = NewEvent::raw(row.get::<String, _>("type"), version, bytes("payload_text").unwrap());
    event.event_id = row.get("id");
    event.metadata = bytes("metadata_text");
    (event.trace_id, event.correlation_id, event.causation_id) =
        (row.get("trace"), row.get("correlation"), row.get("causation"));
    event.created_at = row.get("at");
    let stream = aggregate(row.get::<String, _>("stream_type"), row.get::<String, _>("stream_id"));
    let (version, position): (i64, i64) = (row.get("version"), row.get("position"));
    Ok(PersistedEvent::from_new(stream, version.try_into()?, position.try_into()?, event))
}

#[async_trait]
impl EventStore for JsonbStore {
    type Tx = PgConnection;

    async fn append(
        &self,
        tx: &mut PgConnection,
        of: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        check_append(of, events)?;
        self.needs_transaction(tx, Wrong::AppendsOutsideTransactions)?;
        // JSONB holds JSON, and no string with a zero byte.
        let holds = |event: &NewEvent| {
            serde_json::from_slice::<serde_json::Value>(&event.payload)
                .is_ok_and(|value| !value.to_string().contains("\\u0000"))
        };
        if !events.iter().all(holds) {
            return Err(Error::Input(InputFault::InvalidText {
                what: "a payload",
                problem: "is nothing that JSONB can hold",
            }));
        }
        if self.0 != Wrong::TakesNoLock {
            self.query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await.map_err(failed)?;
        }
        let head = self.query("SELECT max(version) FROM log WHERE stream_type = $1 AND stream_id = $2");
        let head = head
            .bind(of.aggregate_type().to_owned())
            .bind(of.aggregate_id().to_owned())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
        let actual = head.get::<Option<i64>, _>(0).map(AggregateVersion::try_from).transpose()?;
        if !expected.accepts(actual) {
            if self.0 == Wrong::AbortsAtConflicts {
                self.query("SELECT 1 / 0").execute(tx).await.unwrap_err();
            }
            return Err(Error::VersionConflict { aggregate: of.clone(), expected, actual });
        }
        self.check_ids(tx, events.iter().map(|event| event.event_id).collect()).await?;
        let mut version = actual.map_or(AggregateVersion::FIRST, AggregateVersion::next);
        let mut appended = Vec::new();
        for event in events {
            let position =
                self.query("SELECT nextval('log_position_seq')").fetch_one(&mut *tx).await.map_err(failed)?;
            let event =
                PersistedEvent::from_new(of.clone(), version, position.get::<i64, _>(0).try_into()?, event.clone());
            self.insert(tx, &event).await?;
            appended.push(event);
            version = version.next();
        }
        Ok(Appended { events: appended })
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut PgConnection,
        of: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let query = self
            .query(
                "SELECT *, payload::text AS payload_text, metadata::text AS metadata_text FROM log
                 WHERE stream_type = $1 AND stream_id = $2 AND version >= $3 AND version <= $4 ORDER BY version",
            )
            .bind(of.aggregate_type().to_owned())
            .bind(of.aggregate_id().to_owned())
            .bind(range.from.unwrap_or(0))
            .bind(range.to.unwrap_or(i64::MAX));
        let events = self.events(tx, query).await?;
        let last_version = events.last().map(|event| event.aggregate_version);
        Ok(Stream { aggregate: of.clone(), events, last_version })
    }

    async fn read_events(
        &self,
        tx: &mut PgConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let query = self
            .query(
                "SELECT *, payload::text AS payload_text, metadata::text AS metadata_text FROM log
                 WHERE position > $1 AND (cardinality($2::text[]) = 0 OR stream_type = ANY ($2))
                     AND (cardinality($3::text[]) = 0 OR type = ANY ($3)) ORDER BY position LIMIT $4",
            )
            .bind(after.get())
            .bind(filter.aggregate_types.clone())
            .bind(filter.event_types.clone())
            .bind(i64::from(limit));
        let events = self.events(tx, query).await?;
        let next = events.last().map_or(after, |event| event.global_position);
        Ok(EventPage { scanned: u32::try_from(events.len()).unwrap(), events, next })
    }

    async fn latest_global_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        self.query("SELECT coalesce(max(position), 0) FROM log")
            .fetch_one(tx)
            .await
            .map_err(failed)?
            .get::<i64, _>(0)
            .try_into()
    }
}

#[async_trait]
impl EventTable for JsonbStore {
    type Tx = PgConnection;

    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        work: &mut dyn TableWork<PgConnection>,
    ) -> Result<()> {
        if connection.is_in_transaction() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation: "maintenance" }));
        }
        let mut tx = connection.begin().await.map_err(failed)?;
        work.run(&mut tx).await?;
        tx.commit().await.map_err(failed)
    }

    async fn last_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        self.latest_global_position(tx).await
    }

    async fn count_events(&self, tx: &mut PgConnection, range: PositionRange) -> Result<Vec<StoredCount>> {
        let query = self
            .query(
                "SELECT *, payload::text AS payload_text, metadata::text AS metadata_text, {with_header} AS with_header FROM log
                 WHERE position > $1 AND position <= $2 ORDER BY position",
            )
            .bind(range.after.get())
            .bind(range.up_to.map_or(i64::MAX, GlobalPosition::get));
        let mut counts: Vec<StoredCount> = Vec::new();
        for row in query.fetch_all(tx).await.map_err(failed)? {
            let mut one = StoredCount::of(&event_of(&row)?);
            one.with_header = row.get("with_header");
            let same = |count: &&mut StoredCount| {
                (&count.event_type, count.event_version, count.with_header)
                    == (&one.event_type, one.event_version, one.with_header)
            };
            match counts.iter_mut().find(same) {
                Some(count) => count.add(&one),
                None => counts.push(one),
            }
        }
        Ok(counts)
    }

    async fn stored_events(&self, tx: &mut PgConnection, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let (types, versions): (Vec<String>, Vec<i64>) =
            query.versions.iter().map(|(name, version)| (name.as_str().to_owned(), i64::from(version.get()))).unzip();
        let sql = "
            SELECT * FROM (
                SELECT *, sum(octet_length(payload_text)) OVER (ORDER BY position) AS so_far FROM (
                    SELECT *, payload::text AS payload_text, metadata::text AS metadata_text FROM log
                    WHERE position > $1 AND position <= $2 AND NOT ($5 AND {with_header})
                        AND (cardinality($3::text[]) = 0 OR (type, type_version::bigint) IN (SELECT * FROM UNNEST($3::text[], $4::bigint[])))
                    ORDER BY position LIMIT $6
                ) AS page
            ) AS page WHERE so_far <= $7 OR so_far = octet_length(payload_text) ORDER BY position";
        let rows = self
            .query(sql)
            .bind(query.range.after.get())
            .bind(query.range.up_to.map_or(i64::MAX, GlobalPosition::get))
            .bind(types)
            .bind(versions)
            .bind(query.without_header)
            .bind(i64::from(query.limit))
            .bind(i64::try_from(query.max_bytes).unwrap_or(i64::MAX));
        self.events(tx, rows).await
    }

    async fn stored_events_at(
        &self,
        tx: &mut PgConnection,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        let positions: Vec<i64> = positions.iter().map(|position| position.get()).collect();
        let sql = "SELECT *, payload::text AS payload_text, metadata::text AS metadata_text FROM log WHERE position = \
            ANY ($1) ORDER BY position";
        self.events(tx, self.query(sql).bind(positions)).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut PgConnection,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        self.needs_transaction(tx, Wrong::ReplacesOutsideTransactions)?;
        let mut replacements: Vec<&PayloadReplacement> = replacements.iter().collect();
        replacements.sort_by_key(|replacement| replacement.position);
        let mut replaced = Vec::new();
        for replacement in replacements {
            let (old, new) = (
                String::from_utf8(replacement.old.clone()).unwrap(),
                String::from_utf8(replacement.new.clone()).unwrap(),
            );
            let sql = "UPDATE log SET payload = $1::jsonb WHERE position = $2 AND id = $3 AND payload = $4::jsonb";
            let query = self.query(sql).bind(new).bind(replacement.position.get()).bind(replacement.event_id).bind(old);
            if query.execute(&mut *tx).await.map_err(failed)?.rows_affected() == 1 {
                replaced.push(replacement.position);
            }
        }
        Ok(replaced)
    }

    async fn insert_events(&self, tx: &mut PgConnection, events: &[PersistedEvent]) -> Result<()> {
        self.needs_transaction(tx, Wrong::InsertsOutsideTransactions)?;
        self.query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await.map_err(failed)?;
        let mut last = self.last_position(tx).await?;
        let mut ids: Vec<uuid::Uuid> = Vec::new();
        for event in events {
            if event.global_position <= last {
                return Err(Error::Input(InputFault::OutOfRange {
                    what: "global position",
                    value: event.global_position.get(),
                    hint: "positions ascend",
                }));
            }
            if ids.contains(&event.event_id) {
                return Err(Error::DuplicateEventId { event_id: event.event_id });
            }
            ids.push(event.event_id);
            last = event.global_position;
        }
        self.check_ids(tx, ids).await?;
        for event in events {
            self.insert(tx, event).await?;
        }
        let sql = "SELECT setval('log_position_seq', greatest($1, last_value)) FROM log_position_seq";
        if last > GlobalPosition::START {
            self.query(sql).bind(last.get()).execute(tx).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn settled_position(&self, connection: &mut PgConnection) -> Result<GlobalPosition> {
        if connection.is_in_transaction() {
            return Err(Error::Transaction(TransactionFault::InTransaction {
                operation: "looking for the settled position",
            }));
        }
        let mut tx = connection.begin().await.map_err(failed)?;
        let lock =
            self.query("SELECT pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(&mut *tx).await.map_err(failed)?;
        if !lock.get::<bool, _>(0) {
            return Err(Error::Collision { source: None });
        }
        self.last_position(&mut tx).await
    }
}

/// A database whose events are in such a column.
struct Jsonb(Postgres);

impl Jsonb {
    async fn new() -> Self {
        let db = Postgres::empty().await;
        sqlx::raw_sql(TABLE).execute(&db.pool).await.unwrap();
        PostgresKeys::new()
            .migrate(&mut db.pool.acquire().await.unwrap(), &Namespace::new("jsonb").unwrap())
            .await
            .unwrap();
        Self(db)
    }
}

#[async_trait]
impl Database for Jsonb {
    type Tx = PgConnection;
    type Transaction = <Postgres as Database>::Transaction;
    type Connection = <Postgres as Database>::Connection;

    async fn connect(&self) -> Result<Self::Connection> {
        self.0.connect().await
    }

    fn connection<'c>(&self, connection: &'c mut Self::Connection) -> &'c mut PgConnection {
        self.0.connection(connection)
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        self.0.begin().await
    }

    fn tx<'t>(&self, transaction: &'t mut Self::Transaction) -> &'t mut PgConnection {
        self.0.tx(transaction)
    }

    fn respells_json(&self) -> bool {
        true
    }

    async fn commit(&self, transaction: Self::Transaction) -> Result<()> {
        self.0.commit(transaction).await
    }
}

async fn sealed<S: EventStore<Tx = PgConnection>>(db: &Jsonb, store: S, schemas: Schemas) -> SealedStore<S> {
    let store = SealedStore::new(store, PostgresKeys::new(), Arc::clone(&KEYRING), schemas);
    store.keys().prepare(&mut *db.0.pool.acquire().await.unwrap()).await.unwrap();
    store
}

#[tokio::test]
async fn a_store_of_jsonb_keeps_the_contract() {
    let (db, store) = (Jsonb::new().await, JsonbStore(Wrong::Nothing));
    conformance::event_store(&db, &store).await;
    let suite = event(conformance::EVENT_TYPE)
        .version(conformance::EVENT_VERSION)
        .protect(&["/text"], subject("Owner", "/owner"));
    conformance::event_store(&db, &sealed(&db, store, Schemas::new([suite]).unwrap()).await).await;
}

#[tokio::test]
async fn a_table_of_jsonb_keeps_the_contract() {
    conformance::event_table(&Jsonb::new().await, &JsonbStore(Wrong::Nothing)).await;
}

#[tokio::test]
async fn rules_that_take_a_real_database_are_checked() {
    for (wrong, rule) in [
        (Wrong::TakesNoLock, "both appended at the same version"),
        (
            Wrong::AbortsAtConflicts,
            "append after a conflict, which writes nothing and leaves the transaction usable, failed",
        ),
        (Wrong::AppendsOutsideTransactions, "an append outside of a transaction is refused"),
    ] {
        let db = Jsonb::new().await;
        // Nothing but the lock keeps a version from being given twice.
        sqlx::raw_sql("ALTER TABLE log DROP CONSTRAINT log_stream_type_stream_id_version_key")
            .execute(&db.0.pool)
            .await
            .unwrap();
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_store(&db, &JsonbStore(wrong)).await })
            .await;
    }
    for (wrong, rule) in [
        (Wrong::LooksAtTheFirstBytes, "events are counted by type, version and header"),
        (Wrong::ReplacesOutsideTransactions, "payloads are replaced in a transaction only"),
        (Wrong::InsertsOutsideTransactions, "events are inserted in a transaction only"),
    ] {
        let db = Jsonb::new().await;
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_table(&db, &JsonbStore(wrong)).await })
            .await;
    }
}

/// The customer's name is protected; `id` is a shorter name than `$seal`, so JSONB puts it first.
fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/id"))]).unwrap()
}

async fn append(db: &Jsonb, store: &impl EventStore<Tx = PgConnection>, count: usize) {
    let mut tx = db.0.pool.begin().await.unwrap();
    let events: Vec<_> = (0..count).map(|_| NewEvent::raw("Placed", 1, r#"{"name":"Ada","id":"42"}"#)).collect();
    store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, &events).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn i1_i2_events_in_jsonb_are_sealed_read_counted_backfilled_and_shredded() {
    let db = Jsonb::new().await;
    let bare = JsonbStore(Wrong::Nothing);
    let store = sealed(&db, bare, schemas()).await;
    append(&db, &store, 3).await;
    append(&db, &bare, 2).await;
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT payload::text FROM log ORDER BY position").fetch_all(&db.0.pool).await.unwrap();
    assert!(
        stored[..3]
            .iter()
            .all(|payload| payload.starts_with(r#"{"id": "42", "name": ""#) && payload.contains(r#", "$seal": ""#)),
        "{stored:?}"
    );

    let mut connection = db.0.pool.acquire().await.unwrap();
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((census.rows[0].with_header, census.rows[0].without_header()), (3, 2));
    // A table that looks at the first bytes finds none of them.
    let blind = sealed(&db, JsonbStore(Wrong::LooksAtTheFirstBytes), schemas()).await;
    let missed = blind.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((missed.rows[0].with_header, missed.rows[0].without_header()), (0, 5));

    // Those that have a header are not fetched.
    let done = store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.sealed, done.unchanged, done.skipped), (2, 0, 0));
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((census.rows[0].with_header, census.rows[0].without_header()), (5, 0));
    let names = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM log WHERE payload::text LIKE '%Ada%'")
        .fetch_one(&db.0.pool)
        .await
        .unwrap();
    assert_eq!(names, 0, "I2: plaintext is left");

    let mut tx = db.0.pool.begin().await.unwrap();
    let stream = store.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap();
    for event in &stream.events {
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&event.payload).unwrap(),
            serde_json::json!({ "id": "42", "name": "Ada" })
        );
    }
    assert_eq!(stream.events.len(), 5);
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "42"), "asked for").await.unwrap();
    tx.commit().await.unwrap();
    let stream = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap();
    assert!(stream.events.iter().all(PersistedEvent::is_redacted));
    let done = store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.sealed, done.unchanged, done.skipped), (0, 0, 0));
}
