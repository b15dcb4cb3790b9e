//! Decides what is written for one event, by what its readers see.

use crate::error::Error;
use crate::event::{EventRef, PersistedEvent};
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KeyId, KeyScope};
use crate::maintenance::look::{Look, look_at_both, read_as};
use crate::maintenance::rewrite::KeptBecause;
use crate::maintenance::rewrite::leaks::{Secrets, TooMuch, check_owners};
use crate::schema::{Journey, ReadAs, Schemas, VersionSchema};
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids, check_unprotected};
use crate::sealer::{Coverage, OpenedRow, Sealer, upcast};
use std::collections::{HashMap, HashSet};

/// What is done with an event.
pub(super) enum Fate<'s> {
    /// It is copied byte by byte.
    Same,
    /// It is copied as it is stored, although it should be written anew.
    Kept(KeptBecause, Option<Error>),
    /// It is written anew.
    Anew(Box<Anew<'s>>),
}

/// An event that is to be written anew.
pub(super) struct Anew<'s> {
    /// The event as it is to be stored, except for the payload and the metadata, which are what readers see.
    pub(super) event: PersistedEvent,
    /// The schema by which it is sealed.
    pub(super) schema: &'s VersionSchema,
    pub(super) voids: Voids,
    pub(super) metadata_voids: Voids,
    /// The live keys under which the stored event is sealed, and their scopes.
    pub(super) live: HashMap<KeyId, KeyScope>,
}

/// The drafts of an event that is written anew.
pub(super) struct Drafts<'a> {
    pub(super) payload: Option<Draft<'a>>,
    pub(super) metadata: Option<Draft<'a>>,
}

/// Decides what is done with an event. Its errors are those that a read of the source returns, too.
pub(super) fn fate_of<'s, Tx: Send + 'static>(
    sealer: &'s Sealer<Tx>,
    event: &PersistedEvent,
    row: OpenedRow<'s>,
) -> Result<Fate<'s>, Error> {
    let stored = read_as(sealer.schemas(), &event.stored_type, event.stored_version);
    let Some(ReadAs { schema, .. }) = stored else { return Ok(Fate::Same) };
    let is_sealed = !schema.protects() || matches!(look_at_both(schema, event), Look::Sealed | Look::Nothing);
    if row.is_current(event) && is_sealed {
        return Ok(Fate::Same);
    }
    let owners = check_owners(&schema.plan, event.as_stored(), row.opened.as_ref(), &row.coverage);
    let metadata_owners = event.stored_metadata().map_or(Ok(()), |stored| {
        let opened = row.metadata.as_ref();
        check_owners(&schema.metadata_plan, stored, opened, &row.metadata_coverage).map_err(Error::in_metadata)
    });
    if let Err(error) = owners.and(metadata_owners) {
        return Ok(Fate::Kept(KeptBecause::OtherOwner, Some(error)));
    }
    let opened = |opened: Option<&Opened>, stored: &[u8]| opened.map_or(stored, |opened| &opened.text).to_vec();
    let stored = Stored {
        is_current: row.is_current(event),
        opened_payload: opened(row.opened.as_ref(), &event.payload),
        opened_metadata: event.metadata.as_ref().map(|stored| opened(row.metadata.as_ref(), stored)),
        payload: Facts::of(row.opened.as_ref(), &row.coverage),
        metadata: Facts::of(row.metadata.as_ref(), &row.metadata_coverage),
        live: row.coverage.live.iter().chain(&row.metadata_coverage.live).map(|(key, of)| (*key, of.clone())).collect(),
    };
    let mut seen = Vec::with_capacity(1);
    let journey = upcast(sealer.schemas(), event.clone(), row, &mut seen)?;
    Ok(match stored.anew(sealer.schemas(), seen, journey) {
        Ok(anew) => Fate::Anew(Box::new(anew)),
        Err(Reason { because, error }) => Fate::Kept(because, error),
    })
}

/// The reason why an event is copied as it is stored, although it should be written anew.
struct Reason {
    because: KeptBecause,
    error: Option<Error>,
}

impl From<KeptBecause> for Reason {
    fn from(because: KeptBecause) -> Self {
        Self { because, error: None }
    }
}

/// The facts about an event as it is stored.
struct Stored {
    /// It is of a current version, so no step changes it.
    is_current: bool,
    opened_payload: Vec<u8>,
    opened_metadata: Option<Vec<u8>>,
    payload: Facts,
    metadata: Facts,
    live: HashMap<KeyId, KeyScope>,
}

/// The facts about one of its documents.
struct Facts {
    secrets: Result<Secrets, TooMuch>,
    /// The places that its seal covers.
    places: Vec<String>,
    /// Its redactions, with the destroyed keys.
    redacted: Voids,
    /// The destroyed keys of its redactions, with their scopes.
    destroyed: Vec<(KeyId, KeyScope)>,
}

impl Facts {
    fn of(opened: Option<&Opened>, coverage: &Coverage) -> Self {
        let redacted = || opened.iter().flat_map(|opened| &opened.redacted);
        Self {
            secrets: Secrets::of(opened, coverage),
            places: coverage.places.clone(),
            redacted: redacted().map(|redacted| (redacted.place.clone(), redacted.key_id)).collect(),
            destroyed: redacted().map(|redacted| (redacted.key_id, redacted.scope.clone())).collect(),
        }
    }

    /// Would a place that is sealed now not be sealed any more?
    fn loses(&self, draft: Option<&Draft<'_>>) -> bool {
        let places: HashSet<&str> = draft.iter().flat_map(|draft| draft.places()).collect();
        self.places.iter().any(|place| !places.contains(place.as_str()))
    }
}

impl Stored {
    /// The event that is to be written anew. `seen` is what its readers see.
    fn anew<'s>(
        self,
        schemas: &'s Schemas,
        mut seen: Vec<PersistedEvent>,
        journey: Journey,
    ) -> Result<Anew<'s>, Reason> {
        if seen.is_empty() {
            return Err(KeptBecause::Dropped.into());
        }
        let (true, Some(mut new)) = (journey.is_whole, seen.pop().filter(|_| seen.is_empty())) else {
            return Err(KeptBecause::Split.into());
        };
        if !self.payload.destroyed.is_empty() && !journey.is_exact {
            return Err(KeptBecause::RedactionsUncertain.into());
        }
        // A function sees stand-ins of the metadata, and may have copied them.
        if !self.metadata.destroyed.is_empty() && !journey.is_declared && new.payload != self.opened_payload {
            return Err(KeptBecause::RedactionsUncertain.into());
        }
        new.stored_type.clone_from(&new.event_type);
        new.stored_version = new.event_version;
        let redacted = std::mem::take(&mut new.redacted);
        new.redacted_metadata.clear();
        let Some(ReadAs { schema, .. }) = read_as(schemas, &new.stored_type, new.stored_version) else {
            return Err(KeptBecause::NotAppendable.into());
        };
        let voids = voids_of(&schema.plan, &new, &redacted, &self.payload.destroyed)?;
        let metadata_voids = self.metadata_voids(schema, &new)?;
        let anew = Anew { event: new, schema, voids, metadata_voids, live: self.live.clone() };
        self.check(&anew)?;
        Ok(anew)
    }

    /// The void entries of the metadata. A step over metadata can't say where redactions went.
    fn metadata_voids(&self, schema: &VersionSchema, new: &PersistedEvent) -> Result<Voids, KeptBecause> {
        let redacted = &self.metadata.redacted;
        if redacted.is_empty() {
            return Ok(Voids::new());
        }
        if new.metadata != self.opened_metadata {
            return Err(KeptBecause::RedactionsUncertain);
        }
        if redacted.keys().any(|place| schema.metadata_plan.field_at(place).is_none()) {
            return Err(KeptBecause::RedactionElsewhere);
        }
        Ok(redacted.clone())
    }

    /// Checks that nothing is lost on the way, and that no sealed value would be stored in the clear or for another
    /// owner.
    fn check(&self, anew: &Anew<'_>) -> Result<(), Reason> {
        let drafts =
            anew.drafts().map_err(|error| Reason { because: KeptBecause::NotAppendable, error: Some(error) })?;
        // The stand-ins must be those of the plan, or readers of the copy would see other ones.
        let keeps = |draft: Option<&Draft<'_>>, voids: &Voids, plan: &Plan, seen: &[u8]| match draft {
            Some(draft) => draft.voids() == voids.len() && draft.opens_to(plan).0 == seen,
            None => voids.is_empty(),
        };
        let Anew { event, schema, voids, metadata_voids, .. } = anew;
        let (payload, metadata) = (drafts.payload.as_ref(), drafts.metadata.as_ref());
        let new_metadata = event.metadata.as_deref().unwrap_or_default();
        if !keeps(payload, voids, &schema.plan, &event.payload)
            || !keeps(metadata, metadata_voids, &schema.metadata_plan, new_metadata)
        {
            return Err(KeptBecause::RedactionElsewhere.into());
        }
        // Where no step changed a document, every place means the same as before.
        let payload_loses = self.is_current && self.payload.loses(payload);
        let metadata_loses = event.metadata == self.opened_metadata && self.metadata.loses(metadata);
        let (Ok(secrets), Ok(metadata_secrets)) = (&self.payload.secrets, &self.metadata.secrets) else {
            return Err(KeptBecause::InTheClear.into());
        };
        if payload_loses || metadata_loses {
            return Err(KeptBecause::InTheClear.into());
        }
        let refused = secrets.refuse(&event.payload, payload);
        let refused = refused.or_else(|| metadata_secrets.refuse(new_metadata, metadata));
        // A step of the payload sees the metadata too.
        let refused = refused.or_else(|| match event.payload == self.opened_payload {
            true => None,
            false => metadata_secrets.refuse_beside(&event.payload, payload),
        });
        refused.map_or(Ok(()), |because| Err(because.into()))
    }
}

/// The void entries of an event that is written anew: one for each place that is redacted in it.
fn voids_of(
    plan: &Plan,
    event: &PersistedEvent,
    redacted: &[JsonPointer],
    destroyed: &[(KeyId, KeyScope)],
) -> Result<Voids, KeptBecause> {
    if redacted.iter().any(|place| plan.field_at(place).is_none()) {
        return Err(KeptBecause::RedactionElsewhere);
    }
    keys_of(plan, event, redacted, destroyed).ok_or(KeptBecause::RedactionAmbiguous)
}

/// The destroyed key that the void entry of each place names. `None` if that is not certain.
fn keys_of(
    plan: &Plan,
    event: &PersistedEvent,
    places: &[JsonPointer],
    destroyed: &[(KeyId, KeyScope)],
) -> Option<Voids> {
    let distinct: HashSet<KeyId> = destroyed.iter().map(|(key_id, _)| *key_id).collect();
    if let (1, Some((key_id, _))) = (distinct.len(), destroyed.first()) {
        return Some(places.iter().map(|place| (place.clone(), *key_id)).collect());
    }
    if places.is_empty() {
        return Some(Voids::new());
    }
    // The draft says which scope owns each place by the new plan.
    let draft = Draft::new(plan, event.as_stored()).ok()??;
    let is_owner = |owner: &KeyScope, scope: &KeyScope| plan.normalizers.same(owner.clone()) == *scope;
    let mut voids = Voids::new();
    for scope in &draft.scopes {
        let of_scope: HashSet<KeyId> =
            destroyed.iter().filter(|(_, owner)| is_owner(owner, scope)).map(|(key_id, _)| *key_id).collect();
        if let (1, Some(key_id)) = (of_scope.len(), of_scope.iter().next()) {
            voids.extend(draft.places_of(scope).filter(|place| places.contains(place)).map(|place| (place, *key_id)));
        }
    }
    (voids.len() == places.len()).then_some(voids)
}

impl Anew<'_> {
    /// The drafts of the seals: none of a document in which there is nothing to seal.
    pub(super) fn drafts(&self) -> Result<Drafts<'_>, Error> {
        let payload = draft(&self.schema.plan, self.event.as_stored(), &self.voids)?;
        let metadata = self
            .event
            .stored_metadata()
            .map(|stored| draft(&self.schema.metadata_plan, stored, &self.metadata_voids).map_err(Error::in_metadata));
        Ok(Drafts { payload, metadata: metadata.transpose()?.flatten() })
    }
}

fn draft<'a>(plan: &'a Plan, stored: EventRef<'a>, voids: &Voids) -> Result<Option<Draft<'a>>, Error> {
    match plan.protects() {
        true => Draft::with_voids(plan, stored, voids),
        false => check_unprotected(stored).map(|()| None),
    }
}

impl<'a> Drafts<'a> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Draft<'a>> {
        self.payload.iter().chain(&self.metadata)
    }
}
