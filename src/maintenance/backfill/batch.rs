//! One batch of a backfill: events are read, sealed, written and verified in one transaction.

use crate::crypto::primitives::Salts;
use crate::error::{Error, EventFault, KeyFault, MaintenanceFault, Result};
use crate::event::{EventDocument, EventRef, PersistedEvent};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{Pinned, UsableKeys};
use crate::maintenance::backfill::{BackfillOptions, Skipped};
use crate::maintenance::index_seals::keys_of;
use crate::maintenance::look::{Look, look, look_at_metadata, read_as};
use crate::maintenance::written::{Written, check_metadata, check_payload};
use crate::schema::ReadAs;
use crate::seal::named::find_headers;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids};
use crate::sealer::{Accepts, Coverage, Reader, Sealer, seal_draft};
use crate::store::{EventTable, IndexedSeal, MetadataReplacement, PayloadReplacement, TableWork, UNREADABLE_SEAL};
use async_trait::async_trait;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// The events of a batch, and the result for each.
pub(super) struct Page<'a, T: EventTable + ?Sized> {
    sealer: &'a Sealer<T::Tx>,
    table: &'a T,
    options: &'a BackfillOptions,
    events: Vec<PersistedEvent>,
    /// The key-encryption keys that the KMS opened before anything was locked.
    pinned: Pinned,
    outcome: Outcome,
    skipped: Vec<(usize, Error)>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) sealed: u64,
    pub(super) erased: u64,
    pub(super) unchanged: u64,
    pub(super) raced: u64,
}

/// An event with a protected value in the clear.
struct Open<'e> {
    index: usize,
    event: &'e PersistedEvent,
    /// Those that have one: the payload, the metadata or both.
    documents: Vec<OpenDocument<'e>>,
}

/// A document with a protected value in the clear.
struct OpenDocument<'e> {
    plan: &'e Plan,
    stored: EventRef<'e>,
    /// The text that is to be sealed.
    text: Cow<'e, [u8]>,
    /// The void entries that it already has.
    voids: Voids,
    /// The places that are sealed already, and their keys.
    coverage: Coverage,
}

/// The documents that are written for an event.
struct Sealed<'e> {
    event: &'e PersistedEvent,
    payload: Option<Written>,
    metadata: Option<Written>,
    erases: bool,
}

impl<'a, T: EventTable + ?Sized> Page<'a, T> {
    pub(super) fn new(
        sealer: &'a Sealer<T::Tx>,
        table: &'a T,
        options: &'a BackfillOptions,
        events: Vec<PersistedEvent>,
    ) -> Self {
        Self {
            sealer,
            table,
            options,
            events,
            pinned: Pinned::default(),
            outcome: Outcome::default(),
            skipped: Vec::new(),
        }
    }

    /// Has the KMS open the key-encryption keys that an earlier try lacked, while nothing is locked.
    pub(super) async fn open_missed(&mut self) -> Result<()> {
        self.sealer.keys().open_missed(&mut self.pinned).await
    }

    pub(super) fn finish(mut self) -> (Outcome, Vec<Skipped>) {
        self.skipped.sort_by_key(|(index, _)| *index);
        let events = &self.events;
        let skipped =
            self.skipped.into_iter().filter_map(|(index, error)| Some(Skipped::new(events.get(index)?, error)));
        (self.outcome, skipped.collect())
    }

    /// A dry run: finds out what would be sealed, as far as that is possible without creating keys.
    pub(super) async fn look(&mut self, connection: &mut T::Tx) -> Result<()> {
        let (mut outcome, mut skipped) = (Outcome::default(), Vec::new());
        let open =
            open_events(self.sealer, connection, &self.events, Reader::Maintenance, &mut outcome, &mut skipped).await?;
        for open in &open {
            let drafts = match open.drafts() {
                Ok(drafts) if drafts.is_empty() => {
                    outcome.unchanged += 1;
                    continue;
                }
                Ok(drafts) => drafts,
                Err(error) => {
                    skipped.push((open.index, error));
                    continue;
                }
            };
            let scopes: HashSet<KeyScope> = drafts.iter().flat_map(|(_, draft)| draft.scopes.iter().cloned()).collect();
            let scopes: Vec<KeyScope> = scopes.into_iter().collect();
            let (mut error, mut erases) = (None, false);
            for (scope, problem) in self.sealer.keys().look_at_scopes(connection, &scopes).await? {
                match problem {
                    Error::Shredded { .. } if self.options.erase_shredded => {
                        erases = true;
                        if self.sealer.keys().destroyed_key(connection, &scope).await?.is_none() {
                            error = Some(never_had_a_key(&scope));
                        }
                    }
                    problem => error = Some(problem),
                }
            }
            match error {
                Some(error) => skipped.push((open.index, error)),
                None => {
                    outcome.sealed += 1;
                    outcome.erased += u64::from(erases);
                }
            }
        }
        (self.outcome, self.skipped) = (outcome, skipped);
        Ok(())
    }
}

#[async_trait]
impl<T: EventTable + ?Sized> TableWork<T::Tx> for Page<'_, T> {
    async fn run(&mut self, tx: &mut T::Tx) -> Result<()> {
        // The work may be run again, so the results are stored at the end only.
        let (mut outcome, mut skipped) = (Outcome::default(), Vec::new());
        let open = open_events(self.sealer, tx, &self.events, Reader::Locked(&self.pinned), &mut outcome, &mut skipped)
            .await?;
        let sealed = self.seal(tx, &open, &mut outcome, &mut skipped).await?;
        let replacements: Vec<PayloadReplacement> = sealed.iter().map(Sealed::replacement).collect();
        let replaced = match replacements.as_slice() {
            [] => HashSet::new(),
            some => self.table.replace_payloads(tx, some).await?.into_iter().collect(),
        };
        let (written, raced): (Vec<_>, Vec<_>) =
            sealed.into_iter().partition(|sealed| replaced.contains(&sealed.event.global_position));
        if let Some(index) = self.table.seal_index() {
            index.add(tx, &written.iter().map(Sealed::indexed).collect::<Vec<_>>()).await?;
        }
        verify(self.sealer, self.table, tx, &self.pinned, &written).await?;
        outcome.raced = raced.len() as u64;
        outcome.sealed = written.len() as u64;
        outcome.erased = written.iter().filter(|sealed| sealed.erases).count() as u64;
        (self.outcome, self.skipped) = (outcome, skipped);
        Ok(())
    }
}

impl<T: EventTable + ?Sized> Page<'_, T> {
    /// Seals the events that can be sealed, under locks that last until the transaction ends.
    async fn seal<'e>(
        &self,
        tx: &mut T::Tx,
        open: &'e [Open<'e>],
        outcome: &mut Outcome,
        skipped: &mut Vec<(usize, Error)>,
    ) -> Result<Vec<Sealed<'e>>> {
        let mut drafts = Vec::with_capacity(open.len());
        for open in open {
            match open.drafts() {
                Ok(of_event) if of_event.is_empty() => outcome.unchanged += 1,
                Ok(of_event) => drafts.push((open, of_event)),
                Err(error) => skipped.push((open.index, error)),
            }
        }
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let all = || drafts.iter().flat_map(|(_, of_event)| of_event);
        let scopes: HashSet<&KeyScope> =
            all().flat_map(|(of, draft)| draft.scopes.iter().chain(of.coverage.live.values())).collect();
        let scopes: Vec<KeyScope> = scopes.into_iter().cloned().collect();
        let keys = self.sealer.keys().usable_keys(tx, &scopes, &self.pinned).await?;
        // A key that was opened before the locks were taken may have been shredded meanwhile. Its scope may even have
        // been reopened.
        let live: HashSet<KeyId> = all().flat_map(|(of, _)| of.coverage.live.keys().copied()).collect();
        if !self.sealer.keys().are_live(tx, &live, &self.pinned).await? {
            return Err(Error::Collision { source: None });
        }
        let mut salts = Salts::draw(all().count())?;
        let mut destroyed: HashMap<KeyScope, Option<KeyId>> = HashMap::new();
        let mut sealed = Vec::with_capacity(drafts.len());
        'events: for (open, of_event) in drafts {
            let mut event = Sealed { event: open.event, payload: None, metadata: None, erases: false };
            for (of, draft) in of_event {
                let draft = match self.erase_shredded(tx, of, draft, &keys, &mut destroyed).await? {
                    Ready::Seal { draft, erases } => {
                        event.erases |= erases;
                        draft
                    }
                    Ready::Nothing => continue,
                    Ready::Skip(error) => {
                        skipped.push((open.index, error));
                        continue 'events;
                    }
                };
                let written = Some(Written::of(&draft, of.plan, seal_draft(&draft, &keys, &salts.next()?)?));
                match of.stored.document {
                    EventDocument::Payload => event.payload = written,
                    EventDocument::Metadata => event.metadata = written,
                }
            }
            if event.payload.is_some() || event.metadata.is_some() {
                sealed.push(event);
            }
        }
        Ok(sealed)
    }

    /// Makes values of shredded scopes void, if the options say so.
    async fn erase_shredded<'e>(
        &self,
        tx: &mut T::Tx,
        open: &'e OpenDocument<'e>,
        draft: Draft<'e>,
        keys: &UsableKeys,
        destroyed: &mut HashMap<KeyScope, Option<KeyId>>,
    ) -> Result<Ready<'e>> {
        let mut voids = open.voids.clone();
        let mut error = None;
        for scope in &draft.scopes {
            match keys.key(scope) {
                Ok(_) => {}
                Err(Error::Shredded { .. }) if self.options.erase_shredded => {
                    if !destroyed.contains_key(scope) {
                        destroyed.insert(scope.clone(), self.sealer.keys().destroyed_key(tx, scope).await?);
                    }
                    match destroyed.get(scope) {
                        Some(Some(key_id)) => voids.extend(draft.places_of(scope).map(|place| (place, *key_id))),
                        _ => error = Some(never_had_a_key(scope)),
                    }
                }
                Err(problem) => error = Some(problem),
            }
        }
        let erases = voids.len() > open.voids.len();
        Ok(match error {
            Some(error) => Ready::Skip(error),
            None if !erases => Ready::Seal { draft, erases },
            None => match open.draft(&voids) {
                Ok(Some(draft)) => Ready::Seal { draft, erases },
                Ok(None) => Ready::Nothing,
                Err(problem) => Ready::Skip(problem),
            },
        })
    }
}

/// What to do with an event, once the states of its scopes are known.
enum Ready<'e> {
    Seal { draft: Draft<'e>, erases: bool },
    Nothing,
    Skip(Error),
}

impl<'e> Open<'e> {
    /// The drafts of the seals; none if there is nothing to seal.
    fn drafts(&self) -> Result<Vec<(&OpenDocument<'e>, Draft<'_>)>> {
        let drafts =
            self.documents.iter().filter_map(|of| Some(of.draft(&of.voids).transpose()?.map(|draft| (of, draft))));
        drafts.collect()
    }
}

impl OpenDocument<'_> {
    /// The draft of the seal; `None` if there is nothing to seal.
    fn draft(&self, voids: &Voids) -> Result<Option<Draft<'_>>> {
        self.checked_draft(voids).map_err(|error| match self.stored.document {
            EventDocument::Payload => error,
            EventDocument::Metadata => error.in_metadata(),
        })
    }

    fn checked_draft(&self, voids: &Voids) -> Result<Option<Draft<'_>>> {
        let EventRef { event_id, .. } = self.stored;
        let draft = Draft::with_voids(self.plan, self.stored.with_text(&self.text), voids)?;
        // The owner id is not authenticated. Without this check, whoever can edit it could make us erase a live value,
        // or move it out of reach of a shred.
        if let Some(pointer) = draft.as_ref().and_then(|draft| draft.moved_to_another(&self.coverage.owners)) {
            return Err(Error::Event { event_id, fault: EventFault::OtherOwner { pointer } });
        }
        let places: HashSet<&str> = draft.iter().flat_map(Draft::places).collect();
        // A value that is sealed, but that the plan no longer protects, must not be stored in the clear.
        match self.coverage.places.iter().find(|place| !places.contains(place.as_str())) {
            Some(_) => Err(Error::Event {
                event_id,
                fault: EventFault::Unsealed {
                    event_type: self.stored.event_type.clone(),
                    pointer: self.first_in_the_clear(&places),
                },
            }),
            None => Ok(draft),
        }
    }

    fn first_in_the_clear(&self, places: &HashSet<&str>) -> crate::JsonPointer {
        let place = places.iter().filter(|place| !self.coverage.places.iter().any(|covered| covered == *place)).min();
        crate::JsonPointer::new_unchecked(place.copied().unwrap_or_default())
    }
}

impl Sealed<'_> {
    /// The event as it is stored afterwards.
    fn stored(&self) -> PersistedEvent {
        let mut stored = self.event.clone();
        if let Some(payload) = &self.payload {
            stored.payload.clone_from(&payload.text);
        }
        if let Some(metadata) = &self.metadata {
            stored.metadata = Some(metadata.text.clone());
        }
        stored
    }

    /// The rows of the event in the index of seals.
    fn indexed(&self) -> IndexedSeal {
        let keys = find_headers(&self.stored()).map_or_else(|_| vec![UNREADABLE_SEAL], keys_of);
        IndexedSeal { position: self.event.global_position, keys }
    }

    fn replacement(&self) -> PayloadReplacement {
        let payload = self.payload.as_ref().map_or(&self.event.payload, |payload| &payload.text);
        let metadata = self.metadata.as_ref().map(|metadata| MetadataReplacement {
            old: self.event.metadata.clone().unwrap_or_default(),
            new: metadata.text.clone(),
        });
        PayloadReplacement {
            position: self.event.global_position,
            event_id: self.event.event_id,
            old: self.event.payload.clone(),
            new: payload.clone(),
            metadata,
        }
    }
}

/// Finds the events that have a protected value in the clear, and prepares them for sealing.
async fn open_events<'e, Tx: Send + 'static>(
    sealer: &'e Sealer<Tx>,
    tx: &mut Tx,
    events: &'e [PersistedEvent],
    reader: Reader<'_>,
    outcome: &mut Outcome,
    skipped: &mut Vec<(usize, Error)>,
) -> Result<Vec<Open<'e>>> {
    let (mut found, mut partly) = (Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let Some(ReadAs { schema, .. }) = read_as(sealer.schemas(), &event.stored_type, event.stored_version) else {
            continue;
        };
        let payload = (look(&schema.plan, event.as_stored()), &schema.plan, Some(event.as_stored()));
        let metadata = (look_at_metadata(schema, event), &schema.metadata_plan, event.stored_metadata());
        let (mut documents, mut is_partly, mut unreadable) = (Vec::new(), false, None);
        for (look, plan, stored) in [payload, metadata] {
            match (look, stored) {
                (Look::Unreadable(error), _) => unreadable = unreadable.or(Some(error)),
                (look @ (Look::Plaintext | Look::Partly), Some(stored)) => {
                    is_partly |= matches!(look, Look::Partly);
                    let text = Cow::Borrowed(stored.text);
                    let (voids, coverage) = (Voids::new(), Coverage::default());
                    documents.push(OpenDocument { plan, stored, text, voids, coverage });
                }
                _ => {}
            }
        }
        match unreadable {
            Some(error) => skipped.push((index, error)),
            None if documents.is_empty() => outcome.unchanged += 1,
            None if is_partly => partly.push(Open { index, event, documents }),
            None => found.push(Open { index, event, documents }),
        }
    }
    if partly.is_empty() {
        return Ok(found);
    }
    let rows: Vec<&PersistedEvent> = partly.iter().map(|open| open.event).collect();
    let opened = sealer.open_rows(tx, &rows, Accepts::Plaintext, reader).await?;
    for (mut open, row) in partly.into_iter().zip(opened) {
        match row {
            Ok(mut row) => {
                for of in &mut open.documents {
                    let (opened, coverage) = match of.stored.document {
                        EventDocument::Payload => (row.opened.take(), &mut row.coverage),
                        EventDocument::Metadata => (row.metadata.take(), &mut row.metadata_coverage),
                    };
                    let Some(opened) = opened else { continue };
                    let redacted = opened.redacted.into_iter();
                    of.voids = redacted.map(|redacted| (redacted.place, redacted.key_id)).collect();
                    of.text = Cow::Owned(opened.text);
                    of.coverage = std::mem::take(coverage);
                }
                found.push(open);
            }
            Err(error) => skipped.push((open.index, error)),
        }
    }
    Ok(found)
}

/// Reads the written events back from the database, and opens them as a reader without `accept_plaintext` does.
async fn verify<T: EventTable + ?Sized>(
    sealer: &Sealer<T::Tx>,
    table: &T,
    tx: &mut T::Tx,
    pinned: &Pinned,
    written: &[Sealed<'_>],
) -> Result<()> {
    if written.is_empty() {
        return Ok(());
    }
    let positions: Vec<_> = written.iter().map(|sealed| sealed.event.global_position).collect();
    let mut stored: HashMap<_, PersistedEvent> =
        table.stored_events_at(tx, &positions).await?.into_iter().map(|event| (event.global_position, event)).collect();
    let mut rows = Vec::with_capacity(written.len());
    for sealed in written {
        let differs =
            |problem| Error::Maintenance(MaintenanceFault::NotVerified { event_id: sealed.event.event_id, problem });
        let row = stored.remove(&sealed.event.global_position).ok_or_else(|| differs("it is not in the store"))?;
        let mut same = sealed.event.clone();
        same.payload.clone_from(&row.payload);
        if sealed.metadata.is_some() {
            same.metadata.clone_from(&row.metadata);
        }
        if row != same {
            return Err(differs("more than its payload and its metadata changed"));
        }
        rows.push(row);
    }
    let opened = sealer.open_rows(tx, &rows, Accepts::SealedOnly, Reader::Locked(pinned)).await?;
    for (sealed, opened) in written.iter().zip(opened) {
        let differs =
            |problem| Error::Maintenance(MaintenanceFault::NotVerified { event_id: sealed.event.event_id, problem });
        let opened = opened.map_err(|error| {
            tracing::warn!(event_id = %sealed.event.event_id, %error, "what was written does not open");
            differs("it does not open")
        })?;
        check_payload(sealed.payload.as_ref(), opened.opened.as_ref()).map_err(differs)?;
        check_metadata(sealed.metadata.as_ref(), opened.metadata.as_ref()).map_err(differs)?;
    }
    Ok(())
}

fn never_had_a_key(scope: &KeyScope) -> Error {
    let problem =
        "was shredded before it had a key, so no seal can say that something was erased: reopen it and shred it again";
    Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem })
}
