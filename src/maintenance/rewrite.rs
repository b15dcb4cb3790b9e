//! Rewrite: copies a store into another one, with its events at their current versions.

mod batch;
mod fate;
mod leaks;

use crate::error::{Error, InputFault, MaintenanceFault, Result, SetUpFault};
use crate::event::{EventType, EventVersion, GlobalPosition, PersistedEvent};
use crate::keys::Pinned;
use crate::maintenance::pace::{ATTEMPTS, PAGE_BYTES, Pace, may_retry};
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable, PositionRange, StoredCount, StoredQuery, check_apart};
use crate::telemetry;
use batch::{Carry, MakeKeys, Outcome};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use uuid::Uuid;

/// The options of a [`rewrite`](SealedStore::rewrite).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RewriteOptions {
    /// How many events are read, verified and committed at a time; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// The largest number of events in a second; no limit by default.
    pub events_per_second: Option<NonZeroU32>,
    /// Copies events that can't be read as they are stored, instead of stopping at the first. They can't be read in the
    /// copy either, until what is wrong with them is corrected in both.
    pub copy_unreadable: bool,
    /// Changes nothing, and reports what would be done from the target's last position on.
    pub dry_run: bool,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self { batch: 500, events_per_second: None, copy_unreadable: false, dry_run: false }
    }
}

/// The reason why an event was copied as it is stored, although it is not of a current version, or not sealed as the
/// current version needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeptBecause {
    /// Its steps split it: one event can't be stored as several.
    Split,
    /// Its steps drop it. The copy must not have gaps in positions and versions that the source does not have.
    Dropped,
    /// It has redactions, and a step on its way can't say for certain where they went.
    RedactionsUncertain,
    /// It has a redaction at a place that its current version does not protect, or that no longer exists.
    RedactionElsewhere,
    /// It has redactions of several destroyed keys, and a redaction could belong to more than one of them.
    RedactionAmbiguous,
    /// Its current version protects a value that is not redacted, although its owner was shredded.
    OwnerShredded,
    /// One of its protected values would be stored in the clear, or finding that out would take too long. Strings and
    /// numbers are looked for. `true`, `false`, and a value that a step computed, such as a first letter, can't be
    /// found.
    InTheClear,
    /// It names another owner for a value than the one for which the value is sealed, or its current version gives a
    /// value to another owner. A shred of the former owner would miss such a value. A new owner, who has no live value
    /// in the stored event, may receive values that the stored event already shows in the clear, but nothing that a
    /// step computed.
    OtherOwner,
    /// An append of the event that its steps make would be refused.
    NotAppendable,
    /// It can't be read: see [`copy_unreadable`](RewriteOptions::copy_unreadable).
    Unreadable,
}

impl KeptBecause {
    /// The reason in a few words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Split => "it is split",
            Self::Dropped => "it is dropped",
            Self::RedactionsUncertain => "where its redactions went is uncertain",
            Self::RedactionElsewhere => "a redaction is where nothing is protected",
            Self::RedactionAmbiguous => "whose redaction it is is ambiguous",
            Self::OwnerShredded => "an owner of a value was shredded",
            Self::InTheClear => "a protected value would be in the clear",
            Self::OtherOwner => "a protected value would get another owner",
            Self::NotAppendable => "what it becomes can't be appended",
            Self::Unreadable => "it can't be read",
        }
    }
}

/// An event that was copied as it is stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct Kept {
    /// Its position.
    pub position: GlobalPosition,
    /// Its id.
    pub event_id: Uuid,
    /// The type as stored.
    pub event_type: EventType,
    /// The version as stored.
    pub event_version: EventVersion,
    /// Why.
    pub because: KeptBecause,
    /// The error that was the reason, if there was one.
    pub error: Option<Error>,
}

impl Kept {
    fn new(event: &PersistedEvent, because: KeptBecause, error: Option<Error>) -> Self {
        Self {
            position: event.global_position,
            event_id: event.event_id,
            event_type: event.stored_type.clone(),
            event_version: event.stored_version,
            because,
            error,
        }
    }
}

/// The report of a rewrite: what it did or, on a dry run, what it would do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Rewritten {
    /// How many events were copied byte by byte, because they are of a current version and sealed.
    pub copied: u64,
    /// How many were written anew.
    pub rewritten: u64,
    /// How many of these have void entries, which stand for shredded values.
    pub with_voids: u64,
    /// How many were copied as they are stored, by reason.
    pub kept: BTreeMap<KeptBecause, u64>,
    /// The first 1,000 of these.
    pub first_kept: Vec<Kept>,
    /// The position of the source up to which the target is complete.
    pub up_to: GlobalPosition,
}

/// The progress of a rewrite, after each batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RewriteProgress<'a> {
    /// The position up to which it is done.
    pub position: GlobalPosition,
    /// The position at which it will end.
    pub last: GlobalPosition,
    /// The report so far.
    pub done: &'a Rewritten,
}

/// How many kept events a report holds.
const REPORTED: usize = 1_000;

impl<S: EventStore + EventTable<Tx = <S as EventStore>::Tx>> SealedStore<S> {
    /// Copies this store into another one, with the events brought up to their current versions.
    ///
    /// The target is an empty table, or one that an earlier call began, for the *same* keys and namespace. It can be
    /// other tables in the same database (not on SQLite, which lets only one connection write), or another database.
    /// For another database, the key tables are copied there, or stay where they are and are used through a
    /// [`SplitStore`](crate::split::SplitStore). Positions, aggregate versions, ids, times and order stay. Type,
    /// version, payload and metadata become what readers see.
    ///
    /// A rewrite copies no keys, and may create missing keys in the source. So copy the key tables after the last call
    /// (`docs/operations.md` says how).
    ///
    /// - A live value is sealed anew under the active keys, bound to its new type and version.
    /// - A shredded value becomes a void entry at the place to which its redaction moved.
    /// - An event that is of its current version and sealed is copied byte by byte.
    /// - An event is copied as it is stored, and counted with the reason, if its steps split or drop it, if its
    ///   redactions can't be carried over for certain, if a protected value would be stored in the clear or for
    ///   [another owner](KeptBecause::OtherOwner), or if the result could not be appended. Readers of the copy see the
    ///   same as readers of the source, so the steps that such an event needs have to stay. A
    ///   [census](crate::maintenance::Census) of the target lists these steps.
    ///
    /// It works in batches. A batch is one transaction of the target. Until that has committed, the scopes of all live
    /// values of the batch are locked in the source, as an append locks them. New keys are committed before the batch.
    /// Before its commit, each batch is read back from the target: each event must open to what readers of the source
    /// see, byte for byte.
    ///
    /// It begins after the target's last position, and ends at the position up to which the source is
    /// [settled](EventTable::settled_position) when it begins. Run it again to catch up with events that were appended
    /// since, and a last time when nothing appends to the source any more. Nothing may append to the target before
    /// that.
    ///
    /// A shred reaches both stores, as long as both use the same keys. A call that ended early for any reason has left
    /// a shorter copy that is complete in itself: call it again. Several calls at once get in each other's way, but
    /// lose nothing. At its end, the events of both stores are counted, in one scan each.
    ///
    /// Both connections must not be in a transaction.
    ///
    /// ```
    /// # use eventseal::{EventStore, ExpectedVersion, Keyring, Namespace, NewEvent, Owner, Result, Schemas};
    /// # use eventseal::{SealedStore, aggregate, event};
    /// # use eventseal::maintenance::RewriteOptions;
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
    /// # let db = MemoryDb::new(Namespace::new("demo")?);
    /// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// # let new = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
    /// # store.append(&mut tx, &aggregate("Customer", "42"), ExpectedVersion::NoStream, &[new]).await?;
    /// # tx.commit()?;
    /// let (target, copy) = (MemoryStore::new(), MemoryDb::new(Namespace::new("demo")?));
    /// let options = RewriteOptions::default();
    /// let done = store.rewrite(&mut db.begin(), &target, &mut copy.begin(), &options, &mut |_| {}).await?;
    /// assert_eq!((done.copied, done.rewritten, done.up_to.get()), (1, 0, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MaintenanceFault::Unreadable`] names the first event that can't be read (unless the options say to [copy such
    /// events](RewriteOptions::copy_unreadable)). An event of a disabled scope is one.
    /// [`MaintenanceFault::ForeignTarget`] or [`MaintenanceFault::IncompleteTarget`] if the target holds other events.
    /// [`SetUpFault::NoEventTables`] if it was not migrated; [`MaintenanceFault::TargetIsSource`] and, on SQLite,
    /// [`MaintenanceFault::TargetInSameFile`] at once, on a dry run too (databases in memory count as one);
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable) if others got in the way again and again, [`MaintenanceFault::NotVerified`], [`Error::Database`];
    /// errors of the KMS. Batches that were committed before it remain.
    pub async fn rewrite<T: EventTable + ?Sized>(
        &self,
        connection: &mut <S as EventStore>::Tx,
        target: &T,
        target_connection: &mut T::Tx,
        options: &RewriteOptions,
        progress: &mut (dyn FnMut(RewriteProgress<'_>) + Send),
    ) -> Result<Rewritten> {
        let call = telemetry::rewrite(self.keys().known_namespace(), options.dry_run);
        call.run(|| self.copy_to(connection, target, target_connection, options, progress)).await
    }

    async fn copy_to<T: EventTable + ?Sized>(
        &self,
        connection: &mut <S as EventStore>::Tx,
        target: &T,
        target_connection: &mut T::Tx,
        options: &RewriteOptions,
        progress: &mut (dyn FnMut(RewriteProgress<'_>) + Send),
    ) -> Result<Rewritten> {
        let (table, sealer) = (self.inner(), self.sealer());
        check_apart(table.location(connection).await?.as_ref(), target.location(target_connection).await?.as_ref())?;
        sealer.keys().warm_up(connection).await?;
        let mut attempt = 0;
        let last = loop {
            match table.settled_position(connection).await {
                Ok(settled) => break settled,
                Err(error) => {
                    attempt += 1;
                    // Each of these attempts waits by itself already, and keeps appends waiting, so there are fewer of
                    // them.
                    if attempt >= ATTEMPTS / 4 || !may_retry(&error, attempt).await? {
                        return Err(error);
                    }
                }
            }
        };
        let mut done = Rewritten {
            up_to: begin_after(table, connection, target, target_connection).await?,
            ..Rewritten::default()
        };
        let mut pace = Pace::new(options.events_per_second);
        let mut query =
            StoredQuery { limit: pace.batch(options.batch), max_bytes: PAGE_BYTES, ..StoredQuery::default() };
        while done.up_to < last {
            query.range = PositionRange { after: done.up_to, up_to: Some(last) };
            let events = table.stored_events(connection, &query).await?;
            let found = events.len();
            let Some(position) = events.last().map(|event| event.global_position) else { break };
            let Some(outcome) = self.carry(connection, target, target_connection, options, &events, position).await?
            else {
                // Another call wrote to the same target. This call goes on after the position that it reached.
                done.up_to = begin_after(table, connection, target, target_connection).await?;
                continue;
            };
            done.add(outcome);
            done.up_to = position;
            progress(RewriteProgress { position, last, done: &done });
            pace.keep(found).await?;
        }
        done.up_to = done.up_to.max(last);
        if !options.dry_run {
            same_number(table, connection, target, target_connection, done.up_to).await?;
        }
        let (copied, dry_run) = (done.copied, options.dry_run);
        tracing::info!(copied, rewritten = done.rewritten, up_to = %done.up_to, dry_run, "rewritten");
        Ok(done)
    }

    /// Copies a page. It tries again, a limited number of times, if others get in the way. `None` if something else
    /// wrote to the target meanwhile.
    async fn carry<T: EventTable + ?Sized>(
        &self,
        connection: &mut <S as EventStore>::Tx,
        target: &T,
        target_connection: &mut T::Tx,
        options: &RewriteOptions,
        events: &[PersistedEvent],
        end: GlobalPosition,
    ) -> Result<Option<Outcome>> {
        let (table, sealer) = (self.inner(), self.sealer());
        let before = target.last_position(target_connection).await?;
        if events.first().is_none_or(|first| first.global_position <= before) {
            return Ok(None);
        }
        let (mut attempt, mut pinned) = (0, Pinned::default());
        loop {
            let mut carry = Carry::new(sealer, target, target_connection, options, events, before, &pinned);
            let result = if options.dry_run {
                carry.look(connection).await
            } else {
                table.in_transaction(connection, &mut carry).await
            };
            let (outcome, missing) = carry.finish();
            let result = match result {
                Ok(()) if missing.is_empty() => return Ok(Some(outcome)),
                // Keys are committed first: a key without an event is harmless, but an event without its key is lost.
                Ok(()) => {
                    table.in_transaction(connection, &mut MakeKeys { sealer, scopes: missing, pinned: &pinned }).await
                }
                Err(error) => Err(error),
            };
            attempt += 1;
            // These errors can come from the target, if another writer was first.
            if matches!(
                result,
                Err(Error::Collision { .. }
                    | Error::Input(InputFault::OutOfRange { .. })
                    | Error::DuplicateEventId { .. })
            ) {
                let now = target.last_position(target_connection).await?;
                if now != before {
                    // Either this page was committed in the target, and the source failed after that, where nothing was
                    // written. Or another writer wrote to the target. Then the target does not hold exactly this page.
                    let is_this = now == end && outcome.events() == events.len() as u64;
                    return Ok(is_this.then_some(outcome));
                }
            }
            match result {
                Ok(()) if attempt < ATTEMPTS => {}
                Ok(()) => return Err(Error::Collision { source: None }),
                Err(error) => {
                    if !may_retry(&error, attempt).await? {
                        return Err(error);
                    }
                    sealer.keys().open_missed(&mut pinned).await?;
                }
            }
        }
    }
}

impl Rewritten {
    fn add(&mut self, outcome: Outcome) {
        self.copied += outcome.copied;
        self.rewritten += outcome.rewritten;
        self.with_voids += outcome.with_voids;
        for kept in outcome.kept {
            *self.kept.entry(kept.because).or_default() += 1;
            if self.first_kept.len() < REPORTED {
                self.first_kept.push(kept);
            }
        }
    }
}

/// Checks that the copy has as many events as the source.
async fn same_number<S: EventTable + ?Sized, T: EventTable + ?Sized>(
    source: &S,
    connection: &mut S::Tx,
    target: &T,
    target_connection: &mut T::Tx,
    up_to: GlobalPosition,
) -> Result<()> {
    let range = PositionRange { after: GlobalPosition::START, up_to: Some(up_to) };
    let sum = |counts: Vec<StoredCount>| counts.iter().map(|count| count.events).sum();
    let events: u64 = sum(source.count_events(connection, range).await?);
    let copied: u64 = sum(target.count_events(target_connection, range).await?);
    if events == copied {
        Ok(())
    } else {
        Err(Error::Maintenance(MaintenanceFault::IncompleteTarget { up_to, events, copied }))
    }
}

/// The position after which the copy goes on.
async fn begin_after<S: EventTable + ?Sized, T: EventTable + ?Sized>(
    source: &S,
    connection: &mut S::Tx,
    target: &T,
    target_connection: &mut T::Tx,
) -> Result<GlobalPosition> {
    let position = target.last_position(target_connection).await.map_err(|error| match error {
        Error::SetUp(SetUpFault::NoEventTables { table, .. }) => {
            Error::SetUp(SetUpFault::NoEventTables { of: "target", table })
        }
        error => error,
    })?;
    if position > GlobalPosition::START {
        let copied = target.stored_events_at(target_connection, &[position]).await?;
        let original = source.stored_events_at(connection, &[position]).await?;
        let id = |events: &[PersistedEvent]| events.first().map(|event| event.event_id);
        if id(&copied) != id(&original) {
            return Err(Error::Maintenance(MaintenanceFault::ForeignTarget { position }));
        }
    }
    Ok(position)
}
