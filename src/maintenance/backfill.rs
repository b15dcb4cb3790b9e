//! Backfill: seals events in place that were stored in the clear.

mod batch;

use crate::error::{Error, Result};
use crate::event::{AggregateRef, AggregateVersion, EventType, EventVersion, GlobalPosition, PersistedEvent};
use crate::maintenance::look::read_as;
use crate::maintenance::pace::{PAGE_BYTES, Pace, may_retry};
use crate::schema::Schemas;
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable, PositionRange, StoredCount, StoredQuery};
use crate::telemetry;
use batch::{Outcome, Page};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use uuid::Uuid;

/// The options of a [`backfill`](SealedStore::backfill).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackfillOptions {
    /// How many events are sealed, verified and committed at a time; fewer if they have more than 64 MiB. 500 by
    /// default.
    pub batch: u32,
    /// Begins after this position: at the start by default. See [`Backfilled::next`].
    pub after: GlobalPosition,
    /// Only events that are stored under these types; all protected ones if empty.
    pub event_types: Vec<EventType>,
    /// The largest number of events in a second; no limit by default.
    pub events_per_second: Option<NonZeroU32>,
    /// Also looks into payloads that start with a header, and seals protected values that the header does not cover.
    /// This is needed only if a version was changed to protect more after events of it had been sealed. A
    /// [census](crate::maintenance::CensusOptions::every_payload) of every payload finds such events. It reads all
    /// payloads.
    pub every_payload: bool,
    /// Erases plaintext whose owner was shredded, instead of leaving and reporting it. Afterwards the value is gone,
    /// and the event reads as if it had been sealed before the shred.
    ///
    /// **There is no way back.** You have to decide whether the erasure request meant these values too.
    pub erase_shredded: bool,
    /// Changes nothing, and reports what would be done.
    pub dry_run: bool,
}

impl Default for BackfillOptions {
    fn default() -> Self {
        Self {
            batch: 500,
            after: GlobalPosition::START,
            event_types: Vec::new(),
            events_per_second: None,
            every_payload: false,
            erase_shredded: false,
            dry_run: false,
        }
    }
}

/// The report of a backfill: what it did or, on a dry run, what it would do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Backfilled {
    /// How many events were sealed.
    pub sealed: u64,
    /// How many of these had values that were erased, because their owner was shredded.
    pub erased: u64,
    /// How many were examined and needed nothing: they have no value to protect, or are sealed.
    pub unchanged: u64,
    /// How many were not sealed because something else changed them meanwhile, such as another backfill.
    pub raced: u64,
    /// How many were left as they are, because they can't be sealed.
    pub skipped: u64,
    /// The first 1,000 of these; `progress` receives all.
    pub first_skipped: Vec<Skipped>,
    /// Pass this as [`after`](BackfillOptions::after) to a later call: everything that is committed later lies behind
    /// it. Skipped events lie before it.
    pub next: GlobalPosition,
}

/// An event that was left as it is, and why.
#[derive(Debug, thiserror::Error)]
#[error("{event_type} version {event_version} of {aggregate} (position {position}) was left as it is")]
#[non_exhaustive]
pub struct Skipped {
    /// The event's aggregate.
    pub aggregate: AggregateRef,
    /// The event's version in its aggregate.
    pub aggregate_version: AggregateVersion,
    /// The event's position.
    pub position: GlobalPosition,
    /// The event's id.
    pub event_id: Uuid,
    /// The type as stored.
    pub event_type: EventType,
    /// The version as stored.
    pub event_version: EventVersion,
    /// Why.
    #[source]
    pub error: Error,
}

impl Skipped {
    pub(super) fn new(event: &PersistedEvent, error: Error) -> Self {
        Self {
            aggregate: event.aggregate.clone(),
            aggregate_version: event.aggregate_version,
            position: event.global_position,
            event_id: event.event_id,
            event_type: event.stored_type.clone(),
            event_version: event.stored_version,
            error,
        }
    }
}

/// The progress of a backfill, after each batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackfillProgress<'a> {
    /// The position up to which it is done.
    pub position: GlobalPosition,
    /// The last position of the store when it began.
    pub last: GlobalPosition,
    /// The report so far.
    pub done: &'a Backfilled,
    /// The events of this batch that were skipped.
    pub skipped: &'a [Skipped],
}

/// How many skipped events a report holds.
const REPORTED: usize = 1_000;

impl<S: EventStore + EventTable<Tx = <S as EventStore>::Tx>> SealedStore<S> {
    /// Seals events in place that were stored in the clear before the store was wrapped. Each is sealed as an append
    /// would have sealed it.
    ///
    /// It works in batches, each in a transaction of its own, on a connection that is not in one. It reads back and
    /// opens each event that it wrote. If the result is not what was there before, byte for byte, nothing of the batch
    /// is committed. Appends, reads and shreds go on meanwhile, and several backfills may run at once: an event that
    /// something else changed meanwhile is not touched. A call that ended early for any reason has left every event
    /// readable: call it again.
    ///
    /// Only payloads and metadata change; positions, versions, times, stored types and stored versions do not. Until it
    /// is done, the schemas need [`accept_plaintext`](crate::schema::SchemasBuilder::accept_plaintext), so that events
    /// can be read. Remove that when every process appends through the [`SealedStore`], and
    /// [`Census::may_refuse_plaintext`](crate::maintenance::Census::may_refuse_plaintext) says so.
    ///
    /// An event that can't be sealed is left as it is, and is reported with the error that an append of it would
    /// return, such as [`EventFault::ShapeMismatch`](crate::error::EventFault::ShapeMismatch),
    /// [`EventFault::MissingScopeId`](crate::error::EventFault::MissingScopeId) or [`Error::Disabled`]. An event is
    /// left too if a part of it is sealed for another owner than the payload names now
    /// ([`EventFault::OtherOwner`](crate::error::EventFault::OtherOwner)): it keeps the owner whose key sealed it. If
    /// its owner was shredded ([`Error::Shredded`]), somebody has to decide: see
    /// [`erase_shredded`](BackfillOptions::erase_shredded). If a scope was shredded before it ever had a key, its
    /// values can't be erased, because there is no key that a seal could name
    /// ([`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState)).
    ///
    /// **Copies of the plaintext remain** in backups, replicas and write-ahead logs. Until a `VACUUM`, they also remain
    /// in dead rows of PostgreSQL and in old pages of SQLite.
    ///
    /// ```
    /// # use eventseal::{EventStore, ExpectedVersion, Keyring, Namespace, NewEvent, Owner, Result, Schemas};
    /// # use eventseal::{SealedStore, aggregate, event};
    /// # use eventseal::maintenance::BackfillOptions;
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let db = MemoryDb::new(Namespace::new("demo")?);
    /// # let ada = aggregate("Customer", "42");
    /// # let mut tx = db.begin();
    /// # let plain = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
    /// # MemoryStore::new().append(&mut tx, &ada, ExpectedVersion::NoStream, &[plain]).await?;
    /// # tx.commit()?;
    /// let registered = event("Registered").version(1).protect(&["/name"], Owner::Aggregate);
    /// let schemas = Schemas::builder([registered]).accept_plaintext("Registered").build()?;
    /// let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// let done = store.backfill(&mut db.begin(), &BackfillOptions::default(), &mut |_| {}).await?;
    /// assert_eq!((done.sealed, done.skipped), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Errors that are not about one event: [`TransactionFault::InTransaction`], [`SetUpFault::NotMigrated`],
    /// [`SetUpFault::NamespaceMismatch`], [`KeyFault::NoActiveKek`], [`Error::Collision`] (retryable) if others got in
    /// the way of a batch again and again, [`MaintenanceFault::NotVerified`], [`Error::Database`]; errors of the KMS.
    /// Batches that were committed before it remain.
    ///
    /// [`KeyFault::NoActiveKek`]: crate::error::KeyFault::NoActiveKek
    /// [`MaintenanceFault::NotVerified`]: crate::error::MaintenanceFault::NotVerified
    /// [`SetUpFault::NamespaceMismatch`]: crate::error::SetUpFault::NamespaceMismatch
    /// [`SetUpFault::NotMigrated`]: crate::error::SetUpFault::NotMigrated
    /// [`TransactionFault::InTransaction`]: crate::error::TransactionFault::InTransaction
    pub async fn backfill(
        &self,
        connection: &mut <S as EventStore>::Tx,
        options: &BackfillOptions,
        progress: &mut (dyn FnMut(BackfillProgress<'_>) + Send),
    ) -> Result<Backfilled> {
        let call = telemetry::backfill(self.keys().known_namespace(), options.dry_run);
        call.run(|| self.seal_plaintext(connection, options, progress)).await
    }

    async fn seal_plaintext(
        &self,
        connection: &mut <S as EventStore>::Tx,
        options: &BackfillOptions,
        progress: &mut (dyn FnMut(BackfillProgress<'_>) + Send),
    ) -> Result<Backfilled> {
        let (table, sealer) = (self.inner(), self.sealer());
        let mut done = Backfilled { next: options.after, ..Backfilled::default() };
        // This comes before any event is read: an event that is in flight now may appear at a position that the
        // backfill has passed.
        let settled = match table.settled_position(connection).await {
            Ok(settled) => settled.max(options.after),
            Err(Error::Collision { .. }) => options.after,
            Err(error) => return Err(error),
        };
        let last = table.last_position(connection).await?;
        let mut pace = Pace::new(options.events_per_second);
        let range = PositionRange { after: options.after, up_to: Some(last) };
        let unregistered = match sealer.schemas().protects_unregistered() {
            true => table.count_events(connection, range).await?,
            false => Vec::new(),
        };
        let mut query = StoredQuery {
            range,
            limit: pace.batch(options.batch),
            max_bytes: PAGE_BYTES,
            versions: protected_versions(sealer.schemas(), &options.event_types, &unregistered),
            // A header in the payload says nothing about the metadata.
            without_header: !options.every_payload && !sealer.schemas().protects_metadata(),
        };
        if !query.versions.is_empty() && !options.dry_run {
            sealer.keys().warm_up(connection).await?;
        }
        while !query.versions.is_empty() && query.range.after < last {
            let events = table.stored_events(connection, &query).await?;
            let (found, position) = (events.len(), events.last().map_or(last, |event| event.global_position));
            let mut page = Page::new(sealer, table, options, events);
            if options.dry_run {
                page.look(connection).await?;
            } else if found > 0 {
                commit(table, connection, &mut page).await?;
            }
            let (outcome, skipped) = page.finish();
            done.add(outcome, &skipped);
            query.range.after = position;
            done.next = settled.min(query.range.after).max(options.after);
            progress(BackfillProgress { position: query.range.after, last, done: &done, skipped: &skipped });
            done.keep_first(skipped);
            pace.keep(found).await?;
        }
        tracing::info!(
            sealed = done.sealed,
            erased = done.erased,
            skipped = done.skipped,
            dry_run = options.dry_run,
            "plaintext was sealed"
        );
        Ok(done)
    }
}

/// Commits a page. It tries again, a limited number of times, if others get in the way.
async fn commit<T: EventTable + ?Sized>(table: &T, connection: &mut T::Tx, page: &mut Page<'_, T>) -> Result<()> {
    let mut attempt = 0;
    while let Err(error) = table.in_transaction(connection, page).await {
        attempt += 1;
        if !may_retry(&error, attempt).await? {
            return Err(error);
        }
        page.open_missed().await?;
    }
    Ok(())
}

impl Backfilled {
    fn add(&mut self, outcome: Outcome, skipped: &[Skipped]) {
        self.sealed += outcome.sealed;
        self.erased += outcome.erased;
        self.unchanged += outcome.unchanged;
        self.raced += outcome.raced;
        self.skipped += skipped.len() as u64;
    }

    /// Logs the skipped events, and keeps the first of them for the report.
    fn keep_first(&mut self, skipped: Vec<Skipped>) {
        for skipped in &skipped {
            let Skipped { event_id, position, error, .. } = skipped;
            tracing::warn!(%event_id, %position, %error, "not sealed");
        }
        let room = REPORTED.saturating_sub(self.first_skipped.len());
        self.first_skipped.extend(skipped.into_iter().take(room));
    }
}

/// The stored types and versions that protect something. Version 0 is among them if events without a version are
/// read as such a version.
fn protected_versions(
    schemas: &Schemas,
    wanted: &[EventType],
    stored: &[StoredCount],
) -> Vec<(EventType, EventVersion)> {
    let registered = schemas.versions().into_iter().map(|known| (known.event_type, known.event_version));
    // The metadata of types that are not registered can be protected too. Only the log knows them.
    let stored = stored.iter().map(|count| (count.event_type.clone(), count.event_version));
    let with_none = registered.flat_map(|(name, version)| [(name.clone(), version), (name, EventVersion::new(0))]);
    let mut found: BTreeSet<(EventType, EventVersion)> = with_none.chain(stored).collect();
    found.retain(|(name, version)| {
        let protects = read_as(schemas, name, *version).is_some_and(|known| known.schema.protects());
        protects && (wanted.is_empty() || wanted.contains(name))
    });
    found.into_iter().collect()
}
