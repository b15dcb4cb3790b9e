//! Opens stored events for one owner: only that owner's values, whatever else the events hold.
//!
//! The keys of all other owners count as shredded. So nothing of theirs is opened, no step of the application sees it,
//! and it can't get into the result. What stands in for it follows the steps as every redaction does.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, PersistedEvent, Unreadable};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Places};
use crate::keys::KeyStore;
use crate::keys::names::KeyScope;
use crate::schema::{ReadAs, Schemas};
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids};
use crate::sealer::Sealer;
use crate::sealer::reading::{Accepts, Coverage, OpenedRow, Reader, readable};
use crate::telemetry::Tally;
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
    /// As `lost`, in the metadata.
    pub(crate) lost_in_metadata: Vec<JsonPointer>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Opens stored events for one owner. Each result belongs to one event.
    pub(crate) async fn open_for(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        owner: &KeyScope,
    ) -> Result<Vec<Result<OpenedForOwner, Box<Unreadable>>>> {
        let whose = owner.clone();
        let for_owner =
            move |schemas: &Schemas, events: Vec<PersistedEvent>, rows: Vec<Result<OpenedRow<'_>>>, _: &Tally| {
                let opened = events.into_iter().zip(rows).map(|(event, row)| {
                    let (aggregate, aggregate_version) = (event.aggregate.clone(), event.aggregate_version);
                    let (global_position, event_id) = (event.global_position, event.event_id);
                    row.and_then(|row| OpenedForOwner::of(schemas, event, row, &whose)).map_err(|error| {
                        Box::new(Unreadable { aggregate, aggregate_version, global_position, event_id, error })
                    })
                });
                opened.collect::<Vec<_>>()
            };
        Ok(self.open_page(tx, events, Accepts::AsDeclared, Reader::Owner(owner), None, for_owner).await?.0)
    }
}

impl OpenedForOwner {
    fn of(schemas: &Schemas, event: PersistedEvent, row: OpenedRow<'_>, owner: &KeyScope) -> Result<Self> {
        let is_current = row.is_current(&event);
        let known = schemas.for_read(event.event_id, &event.stored_type, event.stored_version);
        let is_registered = matches!(known, Ok(Some(read_as)) if schemas.is_registered(read_as));
        let (mut payload_places, mut metadata_places) = (Vec::new(), Vec::new());
        if let Some(ReadAs { schema, .. }) = row.read_as.or(known.ok().flatten()) {
            payload_places =
                others_in_the_clear(&schema.plan, event.as_stored(), row.opened.as_ref(), &row.coverage, owner)?;
            if let Some(stored) = event.stored_metadata() {
                let (opened, coverage) = (row.metadata.as_ref(), &row.metadata_coverage);
                metadata_places = others_in_the_clear(&schema.metadata_plan, stored, opened, coverage, owner)
                    .map_err(Error::in_metadata)?;
            }
        }
        let lost = |opened: &Option<Opened>| -> Vec<JsonPointer> {
            let unknown = KeyScope::unknown();
            let redacted = opened.iter().flat_map(|opened| &opened.redacted);
            redacted.filter(|redacted| redacted.scope == unknown).map(|redacted| redacted.place.clone()).collect()
        };
        let (lost, lost_in_metadata) = (lost(&row.opened), lost(&row.metadata));
        let read_as = row.read_as;
        let mut readable = readable(event, row, schemas.normalizers());
        if !payload_places.is_empty() {
            readable.event.payload = without_values(&readable.event.payload, &payload_places);
            readable.event.redacted.extend(payload_places);
        }
        if let Some(metadata) = readable.event.metadata.as_mut().filter(|_| !metadata_places.is_empty()) {
            *metadata = without_values(metadata, &metadata_places);
            readable.event.redacted_metadata.extend(metadata_places);
        }
        let stored = readable.event.clone();
        let current = read_as.filter(|_| !is_current).map(|read_as| {
            let mut out = Vec::with_capacity(1);
            schemas.upcast(read_as, readable, &mut out).map(|_| out)
        });
        Ok(Self { stored, current, is_registered, lost, lost_in_metadata })
    }
}

/// The places that the plan protects for another owner, and that the seal does not cover: somebody stored them in the
/// clear, which the schemas allow for this type.
fn others_in_the_clear(
    plan: &Plan,
    stored: EventRef<'_>,
    opened: Option<&Opened>,
    coverage: &Coverage,
    owner: &KeyScope,
) -> Result<Vec<JsonPointer>> {
    if !plan.protects() {
        return Ok(Vec::new());
    }
    let covered: HashSet<&str> = coverage.places.iter().map(String::as_str).collect();
    let redacted = opened.iter().flat_map(|opened| &opened.redacted);
    let voids: Voids = redacted.map(|redacted| (redacted.place.clone(), redacted.key_id)).collect();
    let stored = stored.with_text(opened.map_or(stored.text, |opened| &opened.text));
    let draft = Draft::with_voids(plan, stored, &voids)?;
    let mut places = Vec::new();
    for owned in draft.iter().flat_map(Draft::owned).filter(|owned| !covered.contains(owned.place)) {
        let pointer = JsonPointer::new_unchecked(owned.place);
        if owned.place.is_empty() {
            // All that is not sealed is protected, and nothing tells which part of it is whose.
            let event_type = stored.event_type.clone();
            return Err(Error::Event {
                event_id: stored.event_id,
                fault: EventFault::Unsealed { event_type, pointer },
            });
        }
        if owned.scope != owner {
            places.push(pointer);
        }
    }
    Ok(places)
}

/// The document with `null` at these places.
fn without_values(payload: &[u8], places: &[JsonPointer]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(payload) else { return payload.to_vec() };
    let mut node = Node::Text(text);
    node.stand_in(&Places::of(places), &mut String::new(), &|_| Some(Node::NULL));
    node.bytes().into_owned()
}
