//! Opens stored events for one owner: only that owner's values, whatever else the events hold.
//!
//! The keys of all other owners count as shredded. So nothing of theirs is opened, no step of the application sees it,
//! and it can't get into the result. What stands in for it follows the steps as every redaction does.

use crate::error::{Error, EventFault, Result};
use crate::event::{PersistedEvent, Unreadable};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Places};
use crate::keys::KeyStore;
use crate::keys::names::KeyScope;
use crate::schema::ReadAs;
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids};
use crate::sealer::Sealer;
use crate::sealer::stored::{Accepts, OpenedRow, Reader, readable};
use std::collections::HashSet;

/// A stored event that was opened for one owner.
pub(crate) struct OpenedForOwner {
    /// The event at its stored version.
    pub(crate) stored: PersistedEvent,
    /// The events that readers get instead; `None` if they get the stored version.
    pub(crate) current: Option<Result<Vec<PersistedEvent>>>,
    /// Do the schemas know the event's type and version?
    pub(crate) is_registered: bool,
    /// The places whose keys have no row, at the stored version: nobody knows whose they are.
    pub(crate) lost: Vec<JsonPointer>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Opens stored events for one owner. Each result belongs to one event.
    pub(crate) async fn open_for(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        owner: &KeyScope,
    ) -> Result<Vec<Result<OpenedForOwner, Box<Unreadable>>>> {
        let rows = self.open_rows(tx, &events, Accepts::AsDeclared, Reader::Owner(owner)).await?;
        let opened = events.into_iter().zip(rows).map(|(event, row)| {
            let (aggregate, aggregate_version) = (event.aggregate.clone(), event.aggregate_version);
            let (global_position, event_id) = (event.global_position, event.event_id);
            row.and_then(|row| self.for_owner(event, row, owner)).map_err(|error| {
                Box::new(Unreadable { aggregate, aggregate_version, global_position, event_id, error })
            })
        });
        Ok(opened.collect())
    }

    fn for_owner(&self, event: PersistedEvent, row: OpenedRow<'_>, owner: &KeyScope) -> Result<OpenedForOwner> {
        let is_current = row.is_current(&event);
        let known = self.schemas.for_read(event.event_id, &event.stored_type, event.stored_version);
        let is_registered = matches!(known, Ok(Some(read_as)) if self.schemas.is_registered(read_as));
        let covered: HashSet<&str> = row.coverage.places.iter().map(String::as_str).collect();
        let in_the_clear = match (&row.opened, row.read_as) {
            (Some(opened), Some(ReadAs { schema, .. })) if schema.plan.protects() => {
                others_in_the_clear(&schema.plan, &event, opened, &covered, owner)?
            }
            _ => Vec::new(),
        };
        let unknown = KeyScope::unknown();
        let redacted = row.opened.iter().flat_map(|opened| &opened.redacted);
        let lost = redacted.filter(|redacted| redacted.scope == unknown).map(|redacted| redacted.place.clone());
        let lost = lost.collect();
        let mut readable = readable(event, row.opened, self.schemas.normalizers());
        if !in_the_clear.is_empty() {
            readable.event.payload = without_values(&readable.event.payload, &in_the_clear);
            readable.event.redacted.extend(in_the_clear);
        }
        let stored = readable.event.clone();
        let current = row.read_as.filter(|_| !is_current).map(|read_as| {
            let mut out = Vec::with_capacity(1);
            self.schemas.upcast(read_as, readable, &mut out).map(|_| out)
        });
        Ok(OpenedForOwner { stored, current, is_registered, lost })
    }
}

/// The places that the plan protects for another owner, and that the seal does not cover: somebody stored them in the
/// clear, which the schemas allow for this type.
fn others_in_the_clear(
    plan: &Plan,
    event: &PersistedEvent,
    opened: &Opened,
    covered: &HashSet<&str>,
    owner: &KeyScope,
) -> Result<Vec<JsonPointer>> {
    let voids: Voids = opened.redacted.iter().map(|redacted| (redacted.place.clone(), redacted.key_id)).collect();
    let draft = Draft::with_voids(plan, event.as_stored().with_payload(&opened.payload), &voids)?;
    let mut places = Vec::new();
    for owned in draft.iter().flat_map(Draft::owned).filter(|owned| !covered.contains(owned.place)) {
        let pointer = JsonPointer::new_unchecked(owned.place);
        if owned.place.is_empty() {
            // All that is not sealed is protected, and nothing tells which part of it is whose.
            let event_type = event.stored_type.clone();
            return Err(Error::Event { event_id: event.event_id, fault: EventFault::Unsealed { event_type, pointer } });
        }
        if owned.scope != owner {
            places.push(pointer);
        }
    }
    Ok(places)
}

/// The payload with `null` at these places.
fn without_values(payload: &[u8], places: &[JsonPointer]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(payload) else { return payload.to_vec() };
    let mut node = Node::Text(text);
    node.stand_in(&Places::of(places), &mut String::new(), &|_| Some("null"));
    node.bytes().into_owned()
}
