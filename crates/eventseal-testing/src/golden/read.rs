//! Reads one case in every way: live and redacted, each twice.

use crate::error::chain;
use crate::golden::case::{Expected, Outcome, as_json, as_read};
use crate::golden::keys::KeyDb;
use crate::golden::report::{Difference, Mismatch, Run};
use crate::json::{Leaf, differences, each_leaf};
use eventseal::error::ErrorKind;
use eventseal::memory::MemoryTx;
use eventseal::schema::{PayloadType, SchemaVersion};
use eventseal::{Error, EventVersion, JsonPointer, KeyScope, NewEvent, PersistedEvent, Result, Schemas, Sealer};
use serde_json::Value;
use std::collections::BTreeSet;
use std::slice::from_ref;

/// How many characters a shredded text or number must have to be searched for. Shorter ones appear elsewhere by chance.
const TELLING: usize = 4;

/// Reads a case. Adds to `found` what is wrong with it regardless of the recorded results. Returns `None` if anything
/// is.
pub(super) async fn read_case(
    sealer: &Sealer<MemoryTx>,
    keys: &KeyDb,
    case: &str,
    event: &PersistedEvent,
    found: &mut Vec<Difference>,
) -> Option<Expected> {
    let before = found.len();
    let mut reading = Reading { sealer, keys, case, event, found };
    let live = match reading.live().await {
        Ok(live) => live,
        Err(error) => {
            reading.add(Run::Live, unreadable(&error));
            return None;
        }
    };
    let redacted = match reading.redacted().await {
        Ok(redacted) => redacted,
        Err(error) => {
            reading.add(Run::Redacted, unreadable(&error));
            return None;
        }
    };
    (found.len() == before).then_some(Expected { live, redacted })
}

fn unreadable(error: &Error) -> Mismatch {
    match error {
        error if error.kind() == ErrorKind::MissingKey => Mismatch::KeyLost,
        error => Mismatch::Unreadable(chain(error)),
    }
}

struct Reading<'a> {
    sealer: &'a Sealer<MemoryTx>,
    keys: &'a KeyDb,
    case: &'a str,
    event: &'a PersistedEvent,
    found: &'a mut Vec<Difference>,
}

impl Reading<'_> {
    async fn live(&mut self) -> Result<Vec<Outcome>> {
        let mut tx = self.keys.db.begin();
        self.twice(&mut tx, self.event, Run::Live).await
    }

    /// Reads the case after its keys were shredded. Returns `None` if nothing is protected. The shreds are in
    /// transactions that are never committed.
    async fn redacted(&mut self) -> Result<Option<Vec<Outcome>>> {
        let mut tx = self.keys.db.begin();
        let plain = open_as_stored(self.sealer, &mut tx, self.event).await?;
        let Some(sealed) = self.sealed(&mut tx, &plain).await? else { return Ok(None) };
        let redacted = self.shredded(&mut tx, &sealed, &plain, None).await?;
        // A step that works if everything is redacted may still fail if only a part is.
        let owners = self.sealer.scopes_of(&plain.aggregate, &self.new_event(&plain))?;
        if owners.len() > 1 {
            for owner in owners {
                let mut tx = self.keys.db.begin();
                let Some(sealed) = self.sealed(&mut tx, &plain).await? else { continue };
                if let Err(error) = self.shredded(&mut tx, &sealed, &plain, Some(&owner)).await {
                    self.add(Run::RedactedFor(owner), Mismatch::Unreadable(chain(&error)));
                }
            }
        }
        Ok(Some(redacted))
    }

    /// The event as it is stored. If it was stored in plaintext, it is sealed now. `None` if there is nothing to seal.
    async fn sealed(&self, tx: &mut MemoryTx, plain: &PersistedEvent) -> Result<Option<PersistedEvent>> {
        if plain.payload != self.event.payload || plain.metadata != self.event.metadata {
            return Ok(Some(self.event.clone()));
        }
        let new = self.new_event(plain);
        let sealed = self.sealer.seal(tx, &plain.aggregate, from_ref(&new)).await?;
        let is_sealed = |sealed: &&NewEvent| sealed.payload() != plain.payload || sealed.metadata != plain.metadata;
        Ok(sealed.first().filter(is_sealed).map(|sealed| {
            let mut event = plain.clone();
            event.payload = sealed.payload().to_vec();
            event.metadata.clone_from(&sealed.metadata);
            (event.stored_version, event.event_version) = (sealed.event_version, sealed.event_version);
            event
        }))
    }

    /// The event for an append. Version 0, which can't be appended, is replaced by the version that it stands for.
    fn new_event(&self, plain: &PersistedEvent) -> NewEvent {
        let mut new = new_event(plain);
        new.event_version = stands_for(self.sealer.schemas(), plain);
        new
    }

    /// Shreds the keys of one owner, or all keys, and reads the event. Reports shredded values that are left in the
    /// result.
    async fn shredded(
        &mut self,
        tx: &mut MemoryTx,
        sealed: &PersistedEvent,
        plain: &PersistedEvent,
        owner: Option<&KeyScope>,
    ) -> Result<Vec<Outcome>> {
        let (run, scopes) = match owner {
            Some(owner) => (Run::RedactedFor(owner.clone()), vec![owner.clone()]),
            // The scopes under which the event was sealed when it was recorded, whatever the schemas say now, and those
            // under which it was sealed just now.
            None => {
                let now = self.sealer.scopes_of(&plain.aggregate, &self.new_event(plain))?;
                (Run::Redacted, self.keys.scopes().cloned().chain(now).collect::<BTreeSet<_>>().into_iter().collect())
            }
        };
        for scope in &scopes {
            self.sealer.keys().shred(tx, scope, "a guard's test").await?;
        }
        let events = self.twice(tx, sealed, run.clone()).await?;
        let erased = open_as_stored(self.sealer, tx, sealed).await?;
        for (protected, value) in shredded_values(plain, &erased, run == Run::Redacted) {
            for (index, event) in events.iter().enumerate() {
                for (part, content) in event.contents() {
                    each_leaf(&content, &mut |place, leaf| {
                        if holds(leaf, &value) {
                            let pointer = format!("/{index}/{part}{place}");
                            self.add(run.clone(), Mismatch::Survives { pointer, protected: protected.clone() });
                        }
                    });
                }
            }
        }
        Ok(events)
    }

    /// Reads the event twice. Reports where the results differ.
    async fn twice(&mut self, tx: &mut MemoryTx, event: &PersistedEvent, run: Run) -> Result<Vec<Outcome>> {
        let events = self.sealer.open(tx, vec![event.clone()]).await?;
        for event in &events {
            // The Rust types of the service must be able to read the event, redacted or not.
            for decoded_into in decoders(self.sealer.schemas(), event) {
                decoded_into.read(event)?;
            }
        }
        let first: Vec<Outcome> = events.iter().map(Outcome::of).collect();
        let second: Vec<Outcome> = self.sealer.open(tx, vec![event.clone()]).await?.iter().map(Outcome::of).collect();
        for differs in differences(&as_json(&first), &as_json(&second)) {
            let mismatch = Mismatch::NotDeterministic {
                pointer: differs.pointer,
                first: differs.expected,
                second: differs.actual,
            };
            self.add(run.clone(), mismatch);
        }
        Ok(first)
    }

    fn add(&mut self, run: Run, mismatch: Mismatch) {
        self.found.push(Difference { case: self.case.to_owned(), run, mismatch });
    }
}

/// The Rust types into which the service decodes this event.
fn decoders(schemas: &Schemas, event: &PersistedEvent) -> Vec<PayloadType> {
    let is_of =
        |known: &SchemaVersion| known.event_type == event.event_type && known.event_version == event.event_version;
    schemas.versions().into_iter().find(is_of).map(|known| known.decoded_into).unwrap_or_default()
}

/// The version as which a stored event is read. It differs from the stored one only for version 0: events that were
/// stored without a version.
pub(super) fn stands_for(schemas: &Schemas, event: &PersistedEvent) -> EventVersion {
    let is_meant = |known: &SchemaVersion| known.is_legacy && known.event_type == event.stored_type;
    let legacy = || schemas.versions().into_iter().find(is_meant).map(|known| known.event_version);
    (event.stored_version.get() == 0).then(legacy).flatten().unwrap_or(event.stored_version)
}

/// Opens an event and leaves it at its stored version.
pub(super) async fn open_as_stored(
    sealer: &Sealer<MemoryTx>,
    tx: &mut MemoryTx,
    event: &PersistedEvent,
) -> Result<PersistedEvent> {
    let opened = sealer.open_as_stored(tx, vec![event.clone()]).await?.pop();
    Ok(opened.unwrap_or_else(|| event.clone()))
}

/// The event as it would have been passed to an append.
pub(super) fn new_event(event: &PersistedEvent) -> NewEvent {
    let mut new = NewEvent::raw(event.stored_type.clone(), event.stored_version.get(), event.payload.clone())
        .with_id(event.event_id)
        .with_created_at(event.created_at);
    new.metadata.clone_from(&event.metadata);
    new
}

/// The shredded values of the plaintext that are long enough to be searched for, each with its place.
///
/// If only a part was shredded (`all` is false), a value that is live at another place is left out.
fn shredded_values(plain: &PersistedEvent, erased: &PersistedEvent, all: bool) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    // The results, which are searched for these values, have numbers in this spelling.
    match serde_json::from_slice::<Value>(&plain.payload).map(as_read) {
        Ok(payload) => values_at(&payload, &erased.redacted, "", &mut values),
        Err(_) => {
            let text = std::str::from_utf8(&plain.payload).ok().filter(|text| text.chars().count() >= TELLING);
            let is_erased = erased.redacted.iter().any(|place| place.as_str().is_empty());
            values.extend(text.filter(|_| is_erased).map(|text| (String::new(), text.to_owned())));
        }
    }
    let read = |metadata: &[u8]| serde_json::from_slice::<Value>(metadata).map(as_read).unwrap_or_default();
    if let Some(metadata) = plain.metadata.as_deref().map(read) {
        values_at(&metadata, &erased.redacted_metadata, " in the metadata", &mut values);
    }
    if !all {
        let rest = [Some(read(&erased.payload)), erased.metadata.as_deref().map(read)];
        values.retain(|(_, value)| {
            let mut is_live = false;
            for rest in rest.iter().flatten() {
                each_leaf(rest, &mut |_, leaf| is_live |= holds(leaf, value));
            }
            !is_live
        });
    }
    values.sort();
    values.dedup();
    values
}

/// Adds the values at these places of a document that are long enough to be searched for.
fn values_at(document: &Value, places: &[JsonPointer], of: &str, values: &mut Vec<(String, String)>) {
    for place in places {
        let Some(value) = document.pointer(place.as_str()) else { continue };
        each_leaf(value, &mut |below, leaf| {
            if let Some(text) = telling(leaf) {
                values.push((format!("{place}{below}{of}", place = place.as_str()), text));
            }
        });
    }
}

/// The text to search for, if this value is long enough.
fn telling(leaf: Leaf<'_>) -> Option<String> {
    let text = match leaf {
        Leaf::Name(_) => return None,
        Leaf::Value(Value::String(text)) => text.clone(),
        Leaf::Value(Value::Number(number)) => number.to_string(),
        Leaf::Value(_) => return None,
    };
    (text.chars().count() >= TELLING).then_some(text)
}

fn holds(leaf: Leaf<'_>, text: &str) -> bool {
    match leaf {
        Leaf::Name(name) => name.contains(text),
        Leaf::Value(Value::String(found)) => found.contains(text),
        Leaf::Value(Value::Number(found)) => found.to_string() == text,
        Leaf::Value(_) => false,
    }
}
