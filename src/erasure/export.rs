//! The export of one person's data, for a request of access or portability.
//!
//! Events are opened for this owner only: see [`Sealer::open_for`](crate::Sealer). Nobody else's protected value is
//! ever decrypted, so none can be in the export.

mod lines;
mod payload;

pub use lines::ExportLines;
pub use payload::{ExportedPayload, ExportedPlaces};

use crate::error::{BoxError, Error, MaintenanceFault, Result, StepError};
use crate::event::{AggregateRef, AggregateVersion, GlobalPosition, PersistedEvent, Unreadable};
use crate::json::pointer::JsonPointer;
use crate::keys::names::KeyScope;
use crate::keys::{KeyStore, ScopeState};
use crate::maintenance::{EventsOf, EventsOfOptions, EventsOfPage};
use crate::sealed_store::SealedStore;
use crate::sealer::OpenedForOwner;
use crate::store::{EventStore, EventTable, PositionRange};
use crate::telemetry;
use time::OffsetDateTime;
use uuid::Uuid;

/// The options of an export: see [`SealedStore::export`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The part of the log; all of it by default.
    pub range: PositionRange,
    /// How many stored events are looked at for a page; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// Looks into the index of seals, if there is one; on by default. Without it, the whole log is read.
    pub use_index: bool,
    /// Hands out metadata too, as it is by default. Of what is protected in it, the owner's values are there, and those
    /// of others are left out. The rest is stored in the clear, and no schema says whose data it is.
    pub metadata: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { range: PositionRange::default(), batch: 500, use_index: true, metadata: true }
    }
}

/// The progress of an export, after each page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// The position up to which the log was searched.
    pub position: GlobalPosition,
    /// The position at which the export ends.
    pub last: GlobalPosition,
    /// How many events were handed out so far.
    pub events: u64,
}

/// One item of an export.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ExportItem<'e> {
    /// An event that holds values of the owner.
    Event(&'e ExportedEvent),
    /// An event that can't be exported. It holds values of the owner, or may hold some.
    Unreadable(&'e Unreadable),
}

/// A stored event in an export.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportedEvent {
    /// The event's aggregate.
    pub aggregate: AggregateRef,
    /// The event's version in its aggregate.
    pub aggregate_version: AggregateVersion,
    /// The event's position.
    pub global_position: GlobalPosition,
    /// The event's id.
    pub event_id: Uuid,
    /// When it happened.
    pub created_at: OffsetDateTime,
    /// The id of the request's trace.
    pub trace_id: Option<String>,
    /// An id that related events share.
    pub correlation_id: Option<String>,
    /// The id of the event or command that caused it.
    pub causation_id: Option<String>,
    /// The event as it was appended. Every value of the owner is here, whatever the steps of the application do.
    pub stored: ExportedPayload,
    /// The event as the application reads it now: one for most, several if it is split, none if it is dropped. `None`
    /// if that is the stored version. An error if a step fails, which is possible because it sees stand-ins in place of
    /// everybody else's values.
    pub current: Option<Result<Vec<ExportedPayload>>>,
    /// Do the schemas know the event's type and version? If not, there is only what was stored.
    pub is_registered: bool,
    /// The places in `stored` whose keys have no row in the key table. Nobody knows whose they are, and nobody can open
    /// them. They are not in the export, which is therefore not [complete](Exported::is_complete).
    pub lost: Vec<JsonPointer>,
    /// As `lost`, in the metadata.
    pub lost_in_metadata: Vec<JsonPointer>,
}

/// The result of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// How many events were handed out.
    pub events: u64,
    /// How many values of the owner are in them, as they were stored.
    pub fields: u64,
    /// How many values of the owner were erased: their keys were shredded.
    pub erased: u64,
    /// How many values of others were left out.
    pub left_out: u64,
    /// How many values have a key without a row: they are lost, or somebody removed rows.
    pub lost: u64,
    /// How many values of the owner are in metadata that was [not asked for](ExportOptions::metadata).
    pub withheld: u64,
    /// How many events can't be exported.
    pub unreadable: u64,
    /// How many events are there as they were stored, because a step to the current version failed.
    pub not_upcast: u64,
    /// The types that the schemas allow to be stored in the clear. Events without a seal name no owner's key, so they
    /// are not searched: seal them first with a [backfill](SealedStore::backfill).
    pub not_searched: Vec<String>,
}

impl Exported {
    /// Does the export hold every value of the owner that a seal in the log protects?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unreadable == 0 && self.lost == 0 && self.withheld == 0
    }
}

type Sink<'s> = &'s mut (dyn FnMut(ExportItem<'_>) -> Result<(), BoxError> + Send);

impl<S, K> SealedStore<S, K>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
    K: KeyStore<Tx = <S as EventStore>::Tx> + ?Sized,
{
    /// Exports the data of one owner: every event with a value that the owner's keys seal, opened, and brought up to
    /// date. It is for a request of access or portability. `sink` gets the events in the order of the log;
    /// [`ExportLines`] writes them as lines of JSON.
    ///
    /// An export holds every sealed value of the owner, and nobody else's. All other keys are treated as shredded: no
    /// other value is opened, and no step of the application sees one. Their places are left out of the payloads, and
    /// [listed](ExportedPayload::left_out). What is stored in the clear is neither hidden nor sorted by owner: it is in
    /// the export, ids of others included.
    ///
    /// Each event is there as it was stored and, if steps lead on from that version, also as the application reads it
    /// now. A step may drop an event or a value, and then the stored form still has it.
    ///
    /// `connection` need not be in a transaction. If a key is shredded meanwhile, values after that are erased.
    ///
    /// # What is not found
    /// Events that hold values of the owner in the clear, and values whose key has no row in the key table: see
    /// [`EventsOf`]. [`Exported::not_searched`] names the types that may be stored in the clear.
    ///
    /// # Errors
    /// [`Error::Disabled`] if the scope is disabled, or withheld until a scheduled shred: nothing is exported. First
    /// enable it, or cancel the schedule.
    /// [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState) if the key table does not know the scope.
    /// [`MaintenanceFault::Sink`] if `sink` fails; errors of the KMS, of the key table and of the
    /// [table of events](EventTable). An event that can't be read is not an error: `sink` gets it, and the export
    /// is [not complete](Exported::is_complete).
    pub async fn export(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        options: &ExportOptions,
        sink: Sink<'_>,
        progress: &mut (dyn FnMut(ExportProgress) + Send),
    ) -> Result<Exported> {
        let call = telemetry::export(self.keys().known_namespace(), scope);
        call.run(|| self.export_all_of(connection, scope, options, sink, progress)).await
    }

    async fn export_all_of(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        options: &ExportOptions,
        sink: Sink<'_>,
        progress: &mut (dyn FnMut(ExportProgress) + Send),
    ) -> Result<Exported> {
        let search = EventsOfOptions { range: options.range, batch: options.batch, use_index: options.use_index };
        let history = self.keys().key_history(connection, scope).await?;
        let is_stopped = |state| matches!(state, ScopeState::Disabled | ScopeState::Withheld);
        if history.is_some_and(|history| is_stopped(history.state)) {
            return Err(Error::Disabled { scope: scope.clone() });
        }
        let mut search = self.events_of(connection, scope, &search).await?;
        let not_searched = self.sealer().schemas().accepting_plaintext();
        let mut exported = Exported { not_searched, ..Exported::default() };
        while let Some(page) = search.next(connection).await? {
            self.export_page(connection, scope, options, page, sink, &mut exported).await?;
            progress(progress_of(&search, &exported));
        }
        Ok(exported)
    }

    async fn export_page(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        options: &ExportOptions,
        page: EventsOfPage,
        sink: Sink<'_>,
        exported: &mut Exported,
    ) -> Result<()> {
        let mut write = |item: ExportItem<'_>| {
            sink(item).map_err(|source| Error::Maintenance(MaintenanceFault::Sink(StepError::new(source))))
        };
        let events = page.events.into_iter().map(|found| found.event).collect();
        let opened = self.sealer().open_for(connection, events, scope).await?;
        let exportable = opened.into_iter().map(|opened| {
            opened.and_then(|opened| {
                let event = opened.stored.clone();
                ExportedEvent::of(opened, scope, options).map_err(|error| Box::new(unreadable(event, error)))
            })
        });
        let mut items: Vec<Result<ExportedEvent, Box<Unreadable>>> = exportable.collect();
        items.extend(page.unreadable.into_iter().map(|unreadable| Err(Box::new(unreadable))));
        items.sort_by_key(|item| match item {
            Ok(event) => event.global_position,
            Err(unreadable) => unreadable.global_position,
        });
        for item in items {
            match item {
                Ok(event) => {
                    exported.count(&event);
                    write(ExportItem::Event(&event))?;
                }
                Err(unreadable) => {
                    exported.unreadable += 1;
                    write(ExportItem::Unreadable(&unreadable))?;
                }
            }
        }
        Ok(())
    }
}

fn progress_of<T: EventTable + ?Sized>(search: &EventsOf<'_, T>, exported: &Exported) -> ExportProgress {
    let searched = search.progress();
    ExportProgress { position: searched.position, last: searched.last, events: exported.events }
}

fn unreadable(event: PersistedEvent, error: Error) -> Unreadable {
    Unreadable {
        aggregate: event.aggregate,
        aggregate_version: event.aggregate_version,
        global_position: event.global_position,
        event_id: event.event_id,
        error,
    }
}

impl ExportedEvent {
    fn of(opened: OpenedForOwner, scope: &KeyScope, options: &ExportOptions) -> Result<Self> {
        let OpenedForOwner { stored, current, is_registered, lost, lost_in_metadata } = opened;
        let current = match current {
            None => None,
            // A payload from which the values of others can't be taken out must not be handed out.
            Some(Ok(events)) => {
                let payloads = events.into_iter().map(|event| ExportedPayload::of(event, scope, options.metadata));
                Some(payloads.collect::<Result<Vec<_>>>())
            }
            Some(Err(error)) => Some(Err(error)),
        };
        Ok(Self {
            aggregate: stored.aggregate.clone(),
            aggregate_version: stored.aggregate_version,
            global_position: stored.global_position,
            event_id: stored.event_id,
            created_at: stored.created_at,
            trace_id: stored.trace_id.clone(),
            correlation_id: stored.correlation_id.clone(),
            causation_id: stored.causation_id.clone(),
            stored: ExportedPayload::of(stored, scope, options.metadata)?,
            current,
            is_registered,
            lost,
            lost_in_metadata,
        })
    }
}

impl Exported {
    fn count(&mut self, event: &ExportedEvent) {
        self.events += 1;
        let ExportedPayload { fields, erased, left_out, in_metadata, .. } = &event.stored;
        let lost = event.lost.len() + event.lost_in_metadata.len();
        let of_metadata = in_metadata.fields.len() as u64;
        match event.stored.metadata {
            Some(_) => self.fields += of_metadata,
            None => self.withheld += of_metadata,
        }
        self.fields += fields.len() as u64;
        self.erased += (erased.len() + in_metadata.erased.len()) as u64;
        self.lost += lost as u64;
        self.left_out += (left_out.len() + in_metadata.left_out.len()).saturating_sub(lost) as u64;
        self.not_upcast += u64::from(matches!(event.current, Some(Err(_))));
    }
}
