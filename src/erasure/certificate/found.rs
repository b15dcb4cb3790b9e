//! What a look at the stored events found: counts by type, and events of which nobody knows whose they are.

use super::{CertifiedKey, CertifiedType, Doubtful, DoubtfulEvent, EventCounts, KeyStanding};
use crate::error::Result;
use crate::event::{EventType, EventVersion, GlobalPosition};
use crate::keys::names::KeyId;
use crate::keys::{KeyManager, KeyStore};
use crate::maintenance::{EventOf, OtherKeys};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// How many doubtful events are named.
const NAMED: usize = 10;
/// How many ids of others' keys are remembered, so that each is looked up once.
const REMEMBERED: usize = 1_000_000;

/// What the look at the stored events found.
#[derive(Default)]
pub(super) struct Found {
    types: BTreeMap<(EventType, EventVersion), EventCounts>,
    pub(super) malformed: Doubtful,
    pub(super) unknown: Doubtful,
}

impl Found {
    /// Counts an event, and of its places those that keys of the scope seal.
    pub(super) fn add(&mut self, keys: &[(CertifiedKey, bool)], EventOf { event, places, .. }: &EventOf) {
        let counts = self.types.entry((event.stored_type.clone(), event.stored_version)).or_default();
        let before = *counts;
        for place in places {
            let Some((key, has_key)) = keys.iter().find(|(key, _)| key.key_id == Some(place.key_id)) else { continue };
            match key.standing {
                _ if place.is_void => counts.void_fields += 1,
                _ if *has_key => counts.readable_fields += 1,
                KeyStanding::Destroyed => counts.unreadable_fields += 1,
                _ => counts.lost_fields += 1,
            }
        }
        counts.events += 1;
        if counts.readable_fields > before.readable_fields {
            counts.readable_events += 1;
        } else if counts.lost_fields > before.lost_fields {
            counts.lost_events += 1;
        } else {
            counts.unreadable_events += 1;
        }
    }

    pub(super) fn types(&self) -> Vec<CertifiedType> {
        let types = self.types.iter().map(|((event_type, event_version), counts)| CertifiedType {
            event_type: event_type.clone(),
            event_version: *event_version,
            counts: *counts,
        });
        types.collect()
    }

    pub(super) fn sum(&self) -> EventCounts {
        self.types.values().fold(EventCounts::default(), |sum, counts| EventCounts {
            events: sum.events + counts.events,
            unreadable_events: sum.unreadable_events + counts.unreadable_events,
            readable_events: sum.readable_events + counts.readable_events,
            lost_events: sum.lost_events + counts.lost_events,
            unreadable_fields: sum.unreadable_fields + counts.unreadable_fields,
            void_fields: sum.void_fields + counts.void_fields,
            readable_fields: sum.readable_fields + counts.readable_fields,
            lost_fields: sum.lost_fields + counts.lost_fields,
        })
    }
}

/// Ids of keys that have a row.
#[derive(Default)]
pub(super) struct WithRows(HashSet<KeyId>);

impl WithRows {
    /// Keeps only those of the other keys that have no row.
    pub(super) async fn without<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized>(
        &mut self,
        manager: &KeyManager<Tx, K>,
        connection: &mut Tx,
        mut others: Vec<OtherKeys>,
    ) -> Result<Vec<OtherKeys>> {
        let Self(known) = self;
        if known.len() > REMEMBERED {
            known.clear();
        }
        let new: HashSet<KeyId> = others.iter().flat_map(|event| event.keys.iter().copied()).collect();
        let new: Vec<KeyId> = new.difference(known).copied().collect();
        if !new.is_empty() {
            known.extend(manager.store.data_keys(connection, &new).await?.into_iter().map(|row| row.key_id));
        }
        others.iter_mut().for_each(|event| event.keys.retain(|key_id| !known.contains(key_id)));
        others.retain(|event| !event.keys.is_empty());
        Ok(others)
    }
}

impl Doubtful {
    pub(super) fn add(&mut self, position: GlobalPosition, event: Uuid) {
        self.events += 1;
        if self.first.len() < NAMED {
            self.first.push(DoubtfulEvent { position, event });
        }
    }
}
