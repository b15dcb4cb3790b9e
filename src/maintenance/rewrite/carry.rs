//! What is to be written for one event: decided from what its readers see.

use crate::error::Error;
use crate::event::PersistedEvent;
use crate::key::{KeyId, KeyScope};
use crate::maintenance::look::{Look, look, read_as};
use crate::maintenance::rewrite::KeptBecause;
use crate::maintenance::rewrite::guard::{Secrets, check_owners};
use crate::pointer::JsonPointer;
use crate::schema::{ReadAs, Schemas};
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids, check_unprotected_payload};
use crate::sealer::{OpenedRow, Sealer};
use std::collections::{HashMap, HashSet};

/// What becomes of an event.
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
    /// As it is to be stored, but for the payload, which is what readers see.
    pub(super) event: PersistedEvent,
    /// By which it is sealed; `None`: nothing is protected in it.
    pub(super) plan: Option<&'s Plan>,
    pub(super) voids: Voids,
    /// Under whose live keys the stored event is sealed.
    pub(super) live: HashMap<KeyId, KeyScope>,
}

/// Decides. An error is one of reading: whoever reads the source gets it too.
pub(super) fn fate_of<'s, Tx: Send + 'static>(
    sealer: &'s Sealer<Tx>,
    event: &PersistedEvent,
    row: OpenedRow<'s>,
) -> Result<Fate<'s>, Error> {
    let stored = read_as(sealer.schemas(), &event.stored_type, event.stored_version);
    let Some(ReadAs { schema, .. }) = stored else { return Ok(Fate::Same) };
    let is_sealed = !schema.plan.protects() || matches!(look(&schema.plan, event), Look::Sealed | Look::Nothing);
    if row.is_current(event) && is_sealed {
        return Ok(Fate::Same);
    }
    if let Err(error) = check_owners(&schema.plan, event, &row) {
        return Ok(Fate::Kept(KeptBecause::OtherOwner, Some(error)));
    }
    let (secrets, covered, is_current, live) =
        (Secrets::of(&row), row.coverage.places.clone(), row.is_current(event), row.coverage.live.clone());
    let redacted: Vec<(KeyId, KeyScope)> =
        row.opened.iter().flat_map(|opened| &opened.redacted).map(|r| (r.key_id, r.scope.clone())).collect();
    let mut events = Vec::with_capacity(1);
    let journey = sealer.upcast(event.clone(), row, &mut events)?;
    let kept = |because| Ok(Fate::Kept(because, None));
    if events.is_empty() {
        return kept(KeptBecause::Dropped);
    }
    let (true, Some(mut new)) = (journey.is_whole, events.pop().filter(|_| events.is_empty())) else {
        return kept(KeptBecause::Split);
    };
    if !redacted.is_empty() && !journey.is_exact {
        return kept(KeptBecause::RedactionsUncertain);
    }
    new.stored_type.clone_from(&new.event_type);
    new.stored_version = new.event_version;
    let places = std::mem::take(&mut new.redacted);
    let plan = plan_of(sealer.schemas(), &new);
    let voids = match plan {
        None if places.is_empty() => Voids::new(),
        None => return kept(KeptBecause::RedactionElsewhere),
        Some(plan) => {
            if places.iter().any(|place| plan.field_at(place).is_none()) {
                return kept(KeptBecause::RedactionElsewhere);
            }
            match keys_of(plan, &new, &places, &redacted) {
                Some(voids) => voids,
                None => return kept(KeptBecause::RedactionAmbiguous),
            }
        }
    };
    let anew = Anew { event: new, plan, voids, live };
    match anew.draft() {
        Ok(Some(draft)) if draft.voids() != anew.voids.len() => kept(KeptBecause::RedactionElsewhere),
        // The stand-ins are those of the plan, or readers of the copy would see others.
        Ok(Some(draft)) if draft.opens_to(anew.plan.unwrap_or(&schema.plan)).0 != anew.event.payload => {
            kept(KeptBecause::RedactionElsewhere)
        }
        Ok(None) if !anew.voids.is_empty() => kept(KeptBecause::RedactionElsewhere),
        Ok(draft) => {
            // No step changed it: places mean the same as before.
            let loses = is_current && {
                let places: HashSet<&str> = draft.iter().flat_map(Draft::places).collect();
                covered.iter().any(|place| !places.contains(place.as_str()))
            };
            let refused = match secrets {
                Ok(secrets) if !loses => secrets.refuse(&anew.event.payload, draft.as_ref()),
                _ => Some(KeptBecause::InTheClear),
            };
            drop(draft);
            match refused {
                Some(because) => kept(because),
                None => Ok(Fate::Anew(Box::new(anew))),
            }
        }
        Err(error) => Ok(Fate::Kept(KeptBecause::NotAppendable, Some(error))),
    }
}

fn plan_of<'s>(schemas: &'s Schemas, event: &PersistedEvent) -> Option<&'s Plan> {
    read_as(schemas, &event.stored_type, event.stored_version).map(|known| &known.schema.plan).filter(|plan| plan.protects())
}

/// Which destroyed key the void entry of each place names. `None` if that can't be said for certain.
fn keys_of(plan: &Plan, event: &PersistedEvent, places: &[JsonPointer], destroyed: &[(KeyId, KeyScope)]) -> Option<Voids> {
    let distinct: HashSet<KeyId> = destroyed.iter().map(|(key_id, _)| *key_id).collect();
    if let (1, Some((key_id, _))) = (distinct.len(), destroyed.first()) {
        return Some(places.iter().map(|place| (place.clone(), *key_id)).collect());
    }
    if places.is_empty() {
        return Some(Voids::new());
    }
    // Whose the places are by the new plan.
    let draft = Draft::new(plan, event.as_stored()).ok()??;
    let mut voids = Voids::new();
    for scope in &draft.scopes {
        let of_scope: HashSet<KeyId> = destroyed.iter().filter(|(_, owner)| owner == scope).map(|(key_id, _)| *key_id).collect();
        if let (1, Some(key_id)) = (of_scope.len(), of_scope.iter().next()) {
            voids.extend(draft.places_of(scope).filter(|place| places.contains(place)).map(|place| (place, *key_id)));
        }
    }
    (voids.len() == places.len()).then_some(voids)
}

impl<'s> Anew<'s> {
    /// What is to be sealed; `None` if that is nothing.
    pub(super) fn draft(&self) -> Result<Option<Draft<'_>>, Error> {
        match self.plan {
            Some(plan) => Draft::with_voids(plan, self.event.as_stored(), &self.voids),
            None => check_unprotected_payload(self.event.event_id, &self.event.payload).map(|()| None),
        }
    }
}
