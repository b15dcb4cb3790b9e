//! One batch of a rewrite: events are read in the source, and written, verified and committed in the target.

use crate::crypto::primitives::Salts;
use crate::error::{Error, MaintenanceFault, Result, StorageFault};
use crate::event::{GlobalPosition, PersistedEvent, Unreadable};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{Pinned, UsableKeys};
use crate::maintenance::index_seals::seals_of;
use crate::maintenance::rewrite::fate::{Anew, Fate, fate_of};
use crate::maintenance::rewrite::{Kept, KeptBecause, RewriteOptions};
use crate::maintenance::written::{Written as WrittenDocument, check_metadata, check_payload, is_same_json};
use crate::seal::plan::Plan;
use crate::seal::sealing::Draft;
use crate::sealer::{Accepts, Reader, Sealer, seal_draft};
use crate::store::{EventTable, TableWork};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};

/// Creates keys that are needed, in a transaction of its own.
pub(super) struct MakeKeys<'a, Tx> {
    pub(super) sealer: &'a Sealer<Tx>,
    pub(super) scopes: Vec<KeyScope>,
    pub(super) pinned: &'a Pinned,
}

#[async_trait]
impl<Tx: Send + 'static> TableWork<Tx> for MakeKeys<'_, Tx> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.sealer.keys().usable_keys(tx, &self.scopes, self.pinned).await.map(drop)
    }
}

/// The result of a batch.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) copied: u64,
    pub(super) rewritten: u64,
    pub(super) with_voids: u64,
    pub(super) kept: Vec<Kept>,
}

impl Outcome {
    /// The number of events in the batch.
    pub(super) fn events(&self) -> u64 {
        self.copied + self.rewritten + self.kept.len() as u64
    }
}

/// Copies a batch, in a transaction of the source that holds the locks until the target has committed.
pub(super) struct Carry<'a, Tx, T: EventTable + ?Sized> {
    sealer: &'a Sealer<Tx>,
    target: &'a T,
    target_connection: &'a mut T::Tx,
    options: &'a RewriteOptions,
    events: &'a [PersistedEvent],
    /// The target's last position before the batch.
    before: GlobalPosition,
    /// The key-encryption keys that the KMS opened before anything was locked.
    pinned: &'a Pinned,
    outcome: Outcome,
    /// The scopes whose first keys have to be created before the batch can be written.
    missing: Vec<KeyScope>,
}

/// The event that is written, and what it must be when it is read back.
struct Written {
    event: PersistedEvent,
    /// Those that are sealed anew.
    payload: Option<WrittenDocument>,
    metadata: Option<WrittenDocument>,
}

impl<'a, Tx: Send + 'static, T: EventTable + ?Sized> Carry<'a, Tx, T> {
    pub(super) fn new(
        sealer: &'a Sealer<Tx>,
        target: &'a T,
        target_connection: &'a mut T::Tx,
        options: &'a RewriteOptions,
        events: &'a [PersistedEvent],
        before: GlobalPosition,
        pinned: &'a Pinned,
    ) -> Self {
        Self {
            sealer,
            target,
            target_connection,
            options,
            events,
            before,
            pinned,
            outcome: Outcome::default(),
            missing: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Outcome, Vec<KeyScope>) {
        (self.outcome, self.missing)
    }

    /// A dry run: finds out what would be done, as far as that is possible without creating keys.
    pub(super) async fn look(&mut self, connection: &mut Tx) -> Result<()> {
        let sealer = self.sealer;
        let fates = fates(sealer, connection, self.events, self.options, Reader::Maintenance).await?;
        let scopes: Vec<KeyScope> = scopes_of(&fates).into_iter().collect();
        let unusable = sealer.keys().look_at_scopes(connection, &scopes).await?;
        let mut outcome = Outcome::default();
        for (event, fate) in self.events.iter().zip(fates) {
            match fate {
                Fate::Same => outcome.copied += 1,
                Fate::Kept(because, error) => outcome.kept.push(Kept::new(event, because, error)),
                Fate::Anew(anew) => {
                    let drafts = anew.drafts()?;
                    let problem = drafts
                        .iter()
                        .flat_map(|draft| &draft.scopes)
                        .find_map(|scope| Some((scope, unusable.get(scope)?)));
                    match problem {
                        Some((scope, Error::Shredded { .. })) => {
                            let error = Error::Shredded { scope: scope.clone() };
                            outcome.kept.push(Kept::new(event, KeptBecause::OwnerShredded, Some(error)));
                        }
                        Some((scope, Error::Disabled { .. })) if !self.options.copy_unreadable => {
                            return Err(unreadable(event, Error::Disabled { scope: scope.clone() }));
                        }
                        Some(_) if !self.options.copy_unreadable => {
                            return Err(unreadable(
                                event,
                                Error::Storage(StorageFault::InvalidRow {
                                    what: "the key of a scope",
                                    problem: "can't be used",
                                }),
                            ));
                        }
                        Some(_) => outcome.kept.push(Kept::new(event, KeptBecause::Unreadable, None)),
                        None => {
                            outcome.rewritten += 1;
                            outcome.with_voids += u64::from(!anew.voids.is_empty() || !anew.metadata_voids.is_empty());
                        }
                    }
                }
            }
        }
        self.outcome = outcome;
        Ok(())
    }

    /// Seals the events that are to be sealed anew.
    fn write(&self, fates: Vec<Fate<'a>>, keys: Option<&UsableKeys>, outcome: &mut Outcome) -> Result<Vec<Written>> {
        let anew = fates.iter().filter(|fate| matches!(fate, Fate::Anew(_))).count();
        let mut salts = Salts::draw(2 * anew.max(1))?;
        let mut written = Vec::with_capacity(fates.len());
        for (event, fate) in self.events.iter().zip(fates) {
            let kept = match fate {
                Fate::Same => {
                    outcome.copied += 1;
                    None
                }
                Fate::Kept(because, error) => Some((because, error)),
                Fate::Anew(anew) => match self.seal(*anew, keys, [&salts.next()?, &salts.next()?]) {
                    Ok((anew, voids)) => {
                        outcome.rewritten += 1;
                        outcome.with_voids += u64::from(voids);
                        written.push(anew);
                        continue;
                    }
                    Err(NotAnew::Kept(because, error)) => Some((because, error)),
                    Err(NotAnew::Unusable(error)) if self.options.copy_unreadable => {
                        Some((KeptBecause::Unreadable, Some(error)))
                    }
                    Err(NotAnew::Unusable(error)) => return Err(unreadable(event, error)),
                    Err(NotAnew::Failed(error)) => return Err(error),
                },
            };
            outcome.kept.extend(kept.map(|(because, error)| Kept::new(event, because, error)));
            written.push(Written { event: event.clone(), payload: None, metadata: None });
        }
        Ok(written)
    }

    fn seal(
        &self,
        anew: Anew<'_>,
        keys: Option<&UsableKeys>,
        salts: [&[u8; 16]; 2],
    ) -> Result<(Written, bool), NotAnew> {
        let drafts = anew.drafts().map_err(NotAnew::Failed)?;
        let seal = |draft: Option<&Draft<'_>>, plan: &Plan, salt: &[u8; 16]| {
            let Some(draft) = draft else { return Ok(None) };
            let keys = keys.ok_or(NotAnew::Failed(Error::Collision { source: None }))?;
            for scope in &draft.scopes {
                match keys.key(scope) {
                    Ok(_) => {}
                    Err(error @ Error::Shredded { .. }) => {
                        return Err(NotAnew::Kept(KeptBecause::OwnerShredded, Some(error)));
                    }
                    Err(error) => return Err(NotAnew::Unusable(error)),
                }
            }
            let text = seal_draft(draft, keys, salt).map_err(NotAnew::Failed)?;
            Ok(Some(WrittenDocument::of(draft, plan, text)))
        };
        let [of_payload, of_metadata] = salts;
        let payload = seal(drafts.payload.as_ref(), &anew.schema.plan, of_payload)?;
        let metadata = seal(drafts.metadata.as_ref(), &anew.schema.metadata_plan, of_metadata)?;
        let voids = !anew.voids.is_empty() || !anew.metadata_voids.is_empty();
        drop(drafts);
        let mut event = anew.event;
        if let Some(payload) = &payload {
            event.payload.clone_from(&payload.text);
        }
        if let Some(metadata) = &metadata {
            event.metadata = Some(metadata.text.clone());
        }
        Ok((Written { event, payload, metadata }, voids))
    }
}

/// Decides for each event what is written, by what its readers see now.
async fn fates<'a, Tx: Send + 'static>(
    sealer: &'a Sealer<Tx>,
    tx: &mut Tx,
    events: &'a [PersistedEvent],
    options: &RewriteOptions,
    reader: Reader<'_>,
) -> Result<Vec<Fate<'a>>> {
    let rows = sealer.open_rows(tx, events, Accepts::AsDeclared, reader).await?;
    let _steps = sealer.schemas().reporting_steps();
    let fates = events.iter().zip(rows).map(|(event, row)| match row.and_then(|row| fate_of(sealer, event, row)) {
        Ok(fate) => Ok(fate),
        Err(error) if options.copy_unreadable => Ok(Fate::Kept(KeptBecause::Unreadable, Some(error))),
        Err(error) => Err(unreadable(event, error)),
    });
    fates.collect()
}

/// The reason why an event is not written anew after all.
enum NotAnew {
    Kept(KeptBecause, Option<Error>),
    /// A key that it needs can't be used.
    Unusable(Error),
    Failed(Error),
}

#[async_trait]
impl<Tx: Send + 'static, T: EventTable + ?Sized> TableWork<Tx> for Carry<'_, Tx, T> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let sealer = self.sealer;
        let fates = fates(sealer, tx, self.events, self.options, Reader::Locked(self.pinned)).await?;
        let scopes = scopes_of(&fates);
        let live: HashSet<KeyId> =
            fates.iter().filter_map(Fate::anew).flat_map(|anew| anew.live.keys().copied()).collect();
        let keys = if fates.iter().any(|fate| fate.anew().is_some()) {
            match sealer.keys().existing_keys(tx, &scopes.into_iter().collect::<Vec<_>>(), self.pinned).await? {
                Ok(keys) => Some(keys),
                Err(missing) => {
                    self.missing = missing;
                    return Ok(());
                }
            }
        } else {
            None
        };
        // A key that was opened before the locks were taken may have been shredded meanwhile. Its scope may even have
        // been reopened.
        if !sealer.keys().are_live(tx, &live, self.pinned).await? {
            return Err(Error::Collision { source: None });
        }
        let mut outcome = Outcome::default();
        let written = self.write(fates, keys.as_ref(), &mut outcome)?;
        self.outcome = outcome;
        let mut insert =
            Insert { sealer, source: tx, target: self.target, before: self.before, pinned: self.pinned, written };
        self.target.in_transaction(self.target_connection, &mut insert).await
    }
}

/// Inserts a batch into the target, and verifies it there.
struct Insert<'a, Tx, T: EventTable + ?Sized> {
    sealer: &'a Sealer<Tx>,
    /// The source's connection, for the keys.
    source: &'a mut Tx,
    target: &'a T,
    /// The target's last position before the batch.
    before: GlobalPosition,
    pinned: &'a Pinned,
    written: Vec<Written>,
}

#[async_trait]
impl<Tx: Send + 'static, T: EventTable + ?Sized> TableWork<T::Tx> for Insert<'_, Tx, T> {
    async fn run(&mut self, tx: &mut T::Tx) -> Result<()> {
        if self.target.last_position(tx).await? != self.before {
            return Err(Error::Collision { source: None });
        }
        let events: Vec<PersistedEvent> = self.written.iter().map(|written| written.event.clone()).collect();
        self.target.insert_events(tx, &events).await?;
        if let Some(index) = self.target.seal_index() {
            index.add(tx, &seals_of(&events).0).await?;
        }
        let positions: Vec<_> = events.iter().map(|event| event.global_position).collect();
        let stored = self.target.stored_events_at(tx, &positions).await?;
        let by_position: HashMap<_, &PersistedEvent> =
            stored.iter().map(|event| (event.global_position, event)).collect();
        let (mut sealed, mut expected) = (Vec::<&PersistedEvent>::new(), Vec::new());
        for written in &self.written {
            let differs = |problem| {
                Error::Maintenance(MaintenanceFault::NotVerified { event_id: written.event.event_id, problem })
            };
            let row =
                *by_position.get(&written.event.global_position).ok_or_else(|| differs("it is not in the store"))?;
            let mut same = row.clone();
            if !is_same_json(same.metadata.as_deref(), written.event.metadata.as_deref()) {
                return Err(differs("its metadata is not what was written"));
            }
            same.metadata.clone_from(&written.event.metadata);
            (same.event_type, same.event_version) = (written.event.event_type.clone(), written.event.event_version);
            if same != written.event {
                return Err(differs("it is not what was written"));
            }
            if written.payload.is_some() || written.metadata.is_some() {
                sealed.push(row);
                expected.push(written);
            }
        }
        let opened =
            self.sealer.open_rows(self.source, &sealed, Accepts::SealedOnly, Reader::Locked(self.pinned)).await?;
        for ((row, written), opened) in sealed.iter().zip(expected).zip(opened) {
            let differs =
                |problem| Error::Maintenance(MaintenanceFault::NotVerified { event_id: row.event_id, problem });
            let opened = opened.map_err(|error| {
                tracing::warn!(event_id = %row.event_id, %error, "what was written does not open");
                differs("it does not open")
            })?;
            check_payload(written.payload.as_ref(), opened.opened.as_ref()).map_err(differs)?;
            check_metadata(written.metadata.as_ref(), opened.metadata.as_ref()).map_err(differs)?;
        }
        Ok(())
    }
}

impl<'s> Fate<'s> {
    fn anew(&self) -> Option<&Anew<'s>> {
        match self {
            Self::Anew(anew) => Some(anew),
            _ => None,
        }
    }
}

/// The scopes to lock: those of live values, and those of values that are to be sealed.
fn scopes_of(fates: &[Fate<'_>]) -> HashSet<KeyScope> {
    let mut scopes = HashSet::new();
    for anew in fates.iter().filter_map(Fate::anew) {
        scopes.extend(anew.live.values().cloned());
        if let Ok(drafts) = anew.drafts() {
            scopes.extend(drafts.iter().flat_map(|draft| &draft.scopes).cloned());
        }
    }
    scopes
}

fn unreadable(event: &PersistedEvent, error: Error) -> Error {
    Error::Maintenance(MaintenanceFault::Unreadable(Box::new(Unreadable {
        aggregate: event.aggregate.clone(),
        aggregate_version: event.aggregate_version,
        global_position: event.global_position,
        event_id: event.event_id,
        error,
    })))
}
