//! Opens events and remembers whose keys were used, so that what is folded from them can be sealed under all of these.

use crate::crypto::primitives::{DataKey, Salts};
use crate::error::{Error, EventFault, Result};
use crate::event::{PersistedEvent, SealedPlace};
use crate::json::pointer::{JsonPointer, Places};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyState, KeyStore};
use crate::schema::{Schemas, VersionSchema};
use crate::seal::format::EntryKind;
use crate::seal::opening::{KeyStatus, Opened};
use crate::seal::sealing::SealingKey;
use crate::seal::snapshot::{ClosedSnapshot, SnapshotBinding, fits, seal};
use crate::seal::unsealed::holds_unsealed;
use crate::sealer::Sealer;
use crate::sealer::reading::{Accepts, Manner, OpenedRow, Reader, Unread, upcast};
use crate::sealer::stored::Joins;
use crate::snapshots::outcome::{Discarded, SaveOutcome};
use crate::telemetry::{Call, Tally};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// The keys of the events that were folded into a state: they tell whose data may be in it.
#[derive(Clone, Default)]
pub(crate) struct UsedKeys {
    /// The keys that opened values, each with its owner.
    opened: BTreeMap<KeyId, KeyScope>,
    /// The keys in whose place there was a redaction.
    redacted: BTreeSet<KeyId>,
    /// An event had a value that no key seals, and that its stored version or its current one protects.
    in_the_clear: bool,
}

impl UsedKeys {
    fn add(&mut self, opened: &Opened) {
        for (key_id, owner) in opened.places.keys() {
            if owner.is_shredded {
                self.redacted.insert(key_id);
            } else {
                self.opened.insert(key_id, owner.scope.clone());
            }
        }
    }

    fn extend(&mut self, others: Self) {
        self.opened.extend(others.opened);
        self.redacted.extend(others.redacted);
        self.in_the_clear |= others.in_the_clear;
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.opened.len() + self.redacted.len()
    }
}

/// Events with the keys that they name.
struct Noted {
    events: Vec<PersistedEvent>,
    used: UsedKeys,
}

impl Joins for Noted {
    fn of_none() -> Self {
        Self { events: Vec::new(), used: UsedKeys::default() }
    }

    fn join(&mut self, next: Self) {
        self.events.join(next.events);
        self.used.extend(next.used);
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Opens and upcasts stored events as [`open`](Self::open) does, and adds the keys that all of them name. A key is
    /// not overlooked if its event is dropped or split.
    pub(crate) async fn open_noting(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        used: &mut UsedKeys,
        call: &Call,
    ) -> Result<Vec<PersistedEvent>> {
        let reader = Reader::User(None);
        let Noted { events, used: noted } = self
            .open_page(tx, events, Accepts::AsDeclared, reader, Some(call), note_all)
            .await?
            .0
            .map_err(|unread| unread.into_error())?;
        used.extend(noted);
        Ok(events)
    }

    /// Seals a state under the active keys of all owners whose keys were used. Locks these scopes as an append does,
    /// and then looks at the keys again: a key that was destroyed since, even if its scope was reopened, seals
    /// nothing.
    pub(crate) async fn seal_snapshot(
        &self,
        tx: &mut Tx,
        binding: &SnapshotBinding<'_>,
        used: &UsedKeys,
        state: &[u8],
    ) -> Result<Result<Vec<u8>, SaveOutcome>> {
        if used.in_the_clear {
            return Ok(Err(SaveOutcome::InTheClear));
        }
        let scopes: BTreeSet<&KeyScope> = used.opened.values().collect();
        if !fits(state, scopes.len() + used.redacted.len()) {
            return Ok(Err(SaveOutcome::TooLarge));
        }
        let scopes: Vec<KeyScope> = scopes.into_iter().cloned().collect();
        let Ok(keys) = self.keys.keys_in_use(tx, &scopes).await? else {
            return Ok(Err(SaveOutcome::KeyChanged));
        };
        let mut active: Vec<&(KeyId, Arc<DataKey>)> = Vec::with_capacity(scopes.len());
        for scope in &scopes {
            match keys.key(scope) {
                Ok(key) => active.push(key),
                Err(error) if error.is_outage() || error.is_retryable() => return Err(error),
                Err(_) => return Ok(Err(SaveOutcome::KeyChanged)),
            }
        }
        let key_ids: BTreeSet<KeyId> = used.opened.keys().chain(&used.redacted).copied().collect();
        let states = self.keys.key_states(tx, &key_ids.into_iter().collect::<Vec<_>>()).await?;
        let are_as_before = used.opened.keys().all(|key_id| states.get(key_id) == Some(&KeyState::Live))
            && used.redacted.iter().all(|key_id| states.get(key_id) == Some(&KeyState::Destroyed));
        if !are_as_before {
            return Ok(Err(SaveOutcome::KeyChanged));
        }
        let active: Vec<SealingKey<'_>> = active.into_iter().map(|(id, key)| SealingKey { id: *id, key }).collect();
        let redacted: Vec<KeyId> = used.redacted.iter().copied().collect();
        let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
        let salt = Salts::draw(1)?.next()?;
        seal(state, &keys.namespace, binding, &active, &redacted, &integrity, &salt).map(Ok)
    }

    /// Opens a sealed state. The rows of its keys are read now, whatever lag reads are allowed.
    ///
    /// # Errors
    /// Outages, and those that are not about this snapshot.
    pub(crate) async fn open_snapshot(
        &self,
        tx: &mut Tx,
        binding: &SnapshotBinding<'_>,
        sealed: &[u8],
    ) -> Result<Result<(Vec<u8>, UsedKeys), Discarded>> {
        let closed = match ClosedSnapshot::read(sealed) {
            Ok(closed) => closed,
            Err(discarded) => return Ok(Err(discarded)),
        };
        let key_ids: HashSet<KeyId> = closed.key_ids().collect();
        let (namespace, keys) = self.keys.opening_keys_now(tx, &key_ids, None).await?;
        let state = match closed.open(&namespace, binding, &keys)? {
            Ok(state) => state,
            Err(discarded) => return Ok(Err(discarded)),
        };
        let mut used = UsedKeys::default();
        for (key_id, kind) in closed.needed() {
            match (kind, keys.get(&key_id)) {
                (EntryKind::Sealed, Some(KeyStatus::Live { scope, .. })) => {
                    used.opened.insert(key_id, scope.clone());
                }
                _ => drop(used.redacted.insert(key_id)),
            }
        }
        Ok(Ok((state, used)))
    }
}

/// Upcasts opened events, and notes their keys. The first one that can't be read fails.
fn note_all(
    schemas: &Schemas,
    events: Vec<PersistedEvent>,
    rows: Vec<Result<OpenedRow<'_>>>,
    _: &Tally,
) -> Result<Noted, Box<Unread>> {
    let (mut out, mut used) = (Vec::with_capacity(events.len()), UsedKeys::default());
    for (event, row) in events.into_iter().zip(rows) {
        used.in_the_clear |= holds_plaintext(schemas, &event);
        let unread = Unread::of(&event, &row);
        let noted = row.inspect(|row: &OpenedRow<'_>| {
            row.opened.iter().chain(&row.metadata).for_each(|opened| used.add(opened));
        });
        let (first, is_current) = (out.len(), noted.as_ref().is_ok_and(|row| row.is_current(&event)));
        noted.and_then(|row| upcast(schemas, event, row, &mut out)).map_err(unread)?;
        used.in_the_clear |= !is_current && out[first..].iter().any(|part| protects_later(schemas, part));
    }
    Ok(Noted { events: out, used })
}

/// Does the current version of an upcast event protect a value that no key seals in the store? A rewrite would seal it,
/// and then a shred of its owner must reach everything that was folded from it.
fn protects_later(schemas: &Schemas, part: &PersistedEvent) -> bool {
    let read_as = match schemas.for_read(part.event_id, &part.event_type, part.event_version) {
        Ok(Some(read_as)) => read_as,
        Ok(None) | Err(_) => schemas.unregistered(part.event_version),
    };
    let VersionSchema { plan, metadata_plan, .. } = read_as.schema;
    let sealed = |places: Vec<SealedPlace>, redacted: &[JsonPointer]| {
        let places: Vec<_> = places.into_iter().map(|sealed| sealed.place).chain(redacted.iter().cloned()).collect();
        Places::of(&places)
    };
    let payload = || sealed(part.sealed_places(), &part.redacted);
    let metadata = || sealed(part.sealed_metadata_places(), &part.redacted_metadata);
    let in_metadata = |text: &Vec<u8>| holds_unsealed(metadata_plan, text, metadata);
    holds_unsealed(plan, &part.payload, payload) || part.metadata.as_ref().is_some_and(in_metadata)
}

/// Is there a value in the clear that the schemas protect? They may accept that of events from before the store was
/// wrapped.
fn holds_plaintext(schemas: &Schemas, event: &PersistedEvent) -> bool {
    let sealed_only = Manner::of(Accepts::SealedOnly, Reader::User(None));
    schemas.accepts_plaintext(&event.stored_type)
        && matches!(
            sealed_only.inspect(schemas, event),
            Err(Error::Event { fault, .. }) if matches!(fault.bare(), EventFault::Unsealed { .. })
        )
}
