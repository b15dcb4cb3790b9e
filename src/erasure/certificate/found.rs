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
    /// Ids of keys that have a row.
    known: HashSet<KeyId>,
}

impl Found {
    pub(super) fn add(&mut self, keys: &[(CertifiedKey, bool)], EventOf { event, places, .. }: &EventOf) {
        let counts = self.types.entry((event.stored_type.clone(), event.stored_version)).or_default();
        let before = *counts;
        for place in places {
            let key = keys.iter().find(|(key, _)| key.key_id == Some(place.key_id));
            match key {
                _ if place.is_void => counts.void_fields += 1,
                Some((_, true)) => counts.readable_fields += 1,
                Some((key, false)) if key.standing == KeyStanding::Destroyed => counts.unreadable_fields += 1,
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

    /// Looks which of the other keys that events name have no row.
    pub(super) async fn look_for_unknown<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized>(
        &mut self,
        manager: &KeyManager<Tx, K>,
        connection: &mut Tx,
        others: Vec<OtherKeys>,
    ) -> Result<()> {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let new: HashSet<KeyId> = others.iter().flat_map(|event| event.keys.iter().copied()).collect();
        let new: Vec<KeyId> = new.difference(&self.known).copied().collect();
        if !new.is_empty() {
            self.known.extend(manager.store.data_keys(connection, &new).await?.into_iter().map(|row| row.key_id));
        }
        for event in others {
            if event.keys.iter().any(|key_id| !self.known.contains(key_id)) {
                self.unknown.add(event.position, event.event_id);
            }
        }
        Ok(())
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

impl Doubtful {
    pub(super) fn add(&mut self, position: GlobalPosition, event: Uuid) {
        self.events += 1;
        if self.first.len() < NAMED {
            self.first.push(DoubtfulEvent { position, event });
        }
    }
}
