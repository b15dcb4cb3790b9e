//! What maintenance does with events where they are stored: opens them without upcasting, and seals them there.

use super::{Known, Read, Sealer, readable};
use crate::error::Result;
use crate::event::PersistedEvent;
use crate::key::{KeyId, KeyScope};
use crate::keys::{Pinned, UsableKeys};
use crate::schema::Journey;
use crate::seal::Place;
use crate::seal::opening::{Closed, KeyStatus, Opened, inspect};
use crate::seal::sealing::{Draft, SealingKey};
use std::collections::{HashMap, HashSet};

/// What is asked of stored events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What any reader asks.
    AsReaders,
    /// Every protected value must be covered by a seal.
    Strictly,
    /// Protected values may be in the clear.
    WithPlaintext,
}

/// A stored event that was opened, and not upcast.
pub(crate) struct OpenedRow<'s> {
    /// `None`: it is not sealed, and is read as it is stored.
    pub(crate) opened: Option<Opened>,
    /// What it is read by; `None`: it is of no concern to the registry, or current and not sealed.
    pub(super) schema: Option<Known<'s>>,
    /// The places that its header has entries for.
    pub(crate) covered: Vec<String>,
    /// The live keys that it is sealed under, and whose they are.
    pub(crate) live: HashMap<KeyId, KeyScope>,
    /// Whose live keys its values are sealed under, by place. The owner that the payload names is not authenticated, this is.
    pub(crate) owners: HashMap<String, KeyScope>,
}

impl OpenedRow<'_> {
    /// Is the event handed out as it is once it is opened: under its stored version, which is a current one?
    pub(crate) fn is_current(&self, event: &PersistedEvent) -> bool {
        self.schema.is_none_or(|(schema, version)| schema.is_current() && version == event.stored_version)
    }
}

impl<Tx: Send + 'static> Sealer<Tx> {
    /// Opens events at their stored type and version. The keys' rows are looked at now, whatever lag readers accept. With
    /// `pinned`, the KMS is not asked, because locks are held.
    pub(crate) async fn open_rows<'s>(
        &'s self,
        tx: &mut Tx,
        events: &[&PersistedEvent],
        reading: Reading,
        pinned: Option<&Pinned>,
    ) -> Result<Vec<Result<OpenedRow<'s>>>> {
        let reads: Vec<Result<Read<'s, '_>>> = events.iter().map(|event| self.read_row(event, reading)).collect();
        let key_ids: HashSet<KeyId> = reads.iter().flatten().filter_map(Read::closed).flat_map(Closed::key_ids).collect();
        let keys = if key_ids.is_empty() { None } else { Some(self.keys.opening_keys_now(tx, &key_ids, pinned).await?) };
        let rows = events.iter().zip(reads).map(|(event, read)| {
            let read = read?;
            let (Read::Sealed(closed, schema), Some((namespace, keys))) = (&read, &keys) else {
                return Ok(OpenedRow {
                    opened: None,
                    schema: read.schema(),
                    covered: Vec::new(),
                    live: HashMap::new(),
                    owners: HashMap::new(),
                });
            };
            let place = Place {
                namespace,
                aggregate: &event.aggregate,
                event_id: event.event_id,
                event_type: &event.stored_type,
                event_version: event.stored_version,
            };
            let opened = closed.open(&schema.0.plan, &place, keys)?;
            let live = closed.key_ids().filter_map(|key_id| match keys.get(&key_id) {
                Some(KeyStatus::Live { scope, .. }) if !scope.is_reserved() => Some((key_id, scope.clone())),
                _ => None,
            });
            let live: HashMap<KeyId, KeyScope> = live.collect();
            let owners = closed.entries().filter_map(|(place, key_id)| Some((place.to_owned(), live.get(&key_id)?.clone())));
            Ok(OpenedRow {
                opened: Some(opened),
                schema: Some(*schema),
                owners: owners.collect(),
                live,
                covered: closed.covered().into_iter().map(str::to_owned).collect(),
            })
        });
        Ok(rows.collect())
    }

    /// What readers make of an event that was opened, and what became of its redactions on the way.
    pub(crate) fn upcast_row(&self, event: PersistedEvent, row: OpenedRow<'_>) -> Result<(Vec<PersistedEvent>, Journey)> {
        let mut events = Vec::with_capacity(1);
        let Some(schema) = row.schema else { return Ok((vec![event], Journey { is_whole: true, is_exact: true })) };
        let journey = self.schemas.upcast(schema, readable(event, row.opened), &mut events)?;
        Ok((events, journey))
    }

    fn read_row<'s, 'e>(&'s self, event: &'e PersistedEvent, reading: Reading) -> Result<Read<'s, 'e>> {
        if reading == Reading::AsReaders {
            return self.how_to_read(event);
        }
        let Some(known) = self.schemas.for_read(event.event_id, &event.stored_type, event.stored_version)? else {
            return self.not_registered(event);
        };
        let accept_plaintext = reading == Reading::WithPlaintext;
        Ok(match inspect(&known.0.plan, event.event_id, &event.stored_type, &event.payload, accept_plaintext)? {
            Some(closed) => Read::Sealed(Box::new(closed), known),
            None => Read::Plain(known),
        })
    }
}

/// Seals a draft of an event at its stored type and version. Every scope of it must be usable.
pub(crate) fn seal_draft(draft: &Draft<'_>, event: &PersistedEvent, keys: &UsableKeys, salt: &[u8; 16]) -> Result<Vec<u8>> {
    let place = Place {
        namespace: &keys.namespace,
        aggregate: &event.aggregate,
        event_id: event.event_id,
        event_type: &event.stored_type,
        event_version: event.stored_version,
    };
    let of_scope = |scope: &KeyScope| keys.key(scope).map(|(id, key)| SealingKey { id: *id, key });
    let sealing: Vec<SealingKey<'_>> = draft.scopes.iter().map(of_scope).collect::<Result<_>>()?;
    let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
    draft.seal(&place, &sealing, &integrity, salt)
}
