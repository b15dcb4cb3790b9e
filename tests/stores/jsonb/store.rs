//! A store that keeps payloads in a column of JSONB, and one for each rule that it breaks.

use super::*;
use eventseal::error::{InputFault, TransactionFault};

pub(super) const TABLE: &str = "
    CREATE TABLE log (
        position BIGSERIAL PRIMARY KEY, stream_type TEXT NOT NULL, stream_id TEXT NOT NULL,
            version BIGINT NOT NULL, id UUID NOT NULL UNIQUE,
        type TEXT NOT NULL, type_version INT NOT NULL, payload JSONB NOT NULL, metadata JSONB,
            trace TEXT, correlation TEXT, causation TEXT,
        at TIMESTAMPTZ NOT NULL, UNIQUE (stream_type, stream_id, version)
    )";

/// One writer at a time, so that no position is in flight when it is had.
const LOCK: i64 = 7;

/// The rule that a mutant of the store breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wrong {
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
pub(super) struct JsonbStore(pub(super) Wrong);

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
                "INSERT INTO log (position, stream_type, stream_id, version, id, type, type_version, payload,
                    metadata, trace, correlation,
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
            serde_json::from_slice::<serde_json::Value>(event.payload())
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
                "SELECT *, payload::text AS payload_text, metadata::text AS metadata_text,
                    {with_header} AS with_header FROM log
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
                        AND (cardinality($3::text[]) = 0 OR (type, type_version::bigint) IN
                            (SELECT * FROM UNNEST($3::text[], $4::bigint[])))
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
            let text = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
            let metadata = replacement.metadata.as_ref();
            let sql = "UPDATE log SET payload = $1::jsonb, metadata = COALESCE($5::jsonb, metadata)
                WHERE position = $2 AND id = $3 AND payload = $4::jsonb AND ($5 IS NULL OR metadata = $6::jsonb)";
            let query = self.query(sql).bind(new).bind(replacement.position.get()).bind(replacement.event_id).bind(old);
            let query = query.bind(metadata.map(|metadata| text(&metadata.new)));
            let query = query.bind(metadata.map(|metadata| text(&metadata.old)));
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
