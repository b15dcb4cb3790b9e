//! Decides what is written for one event, by what its readers see.

use crate::error::Error;
use crate::event::PersistedEvent;
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KeyId, KeyScope};
use crate::maintenance::look::{Look, look, read_as};
use crate::maintenance::rewrite::KeptBecause;
use crate::maintenance::rewrite::leaks::{Secrets, TooMuch, check_owners};
use crate::schema::{Journey, ReadAs, Schemas};
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Voids, check_unprotected_payload};
use crate::sealer::{OpenedRow, Sealer};
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
    /// The event as it is to be stored, except for the payload, which is what readers see.
    pub(super) event: PersistedEvent,
    /// The plan by which it is sealed; `None` if its version protects nothing.
    pub(super) plan: Option<&'s Plan>,
    pub(super) voids: Voids,
    /// The live keys under which the stored event is sealed, and their scopes.
    pub(super) live: HashMap<KeyId, KeyScope>,
}

/// Decides what is done with an event. Its errors are those that a read of the source returns, too.
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
    let stored = Stored {
        plan: &schema.plan,
        is_current: row.is_current(event),
        secrets: Secrets::of(&row),
        places: row.coverage.places.clone(),
        live: row.coverage.live.clone(),
        destroyed: row.opened.iter().flat_map(|opened| &opened.redacted).map(|r| (r.key_id, r.scope.clone())).collect(),
    };
    let mut seen = Vec::with_capacity(1);
    let journey = sealer.upcast(event.clone(), row, &mut seen)?;
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
struct Stored<'s> {
    plan: &'s Plan,
    /// It is of a current version, so no step changes it.
    is_current: bool,
    secrets: Result<Secrets, TooMuch>,
    /// The places that its seal covers.
    places: Vec<String>,
    live: HashMap<KeyId, KeyScope>,
    /// The destroyed keys of its redactions, with their scopes.
    destroyed: Vec<(KeyId, KeyScope)>,
}

impl<'s> Stored<'s> {
    /// The event that is to be written anew. `seen` is what its readers see.
    fn anew(self, schemas: &'s Schemas, mut seen: Vec<PersistedEvent>, journey: Journey) -> Result<Anew<'s>, Reason> {
        if seen.is_empty() {
            return Err(KeptBecause::Dropped.into());
        }
        let (true, Some(mut new)) = (journey.is_whole, seen.pop().filter(|_| seen.is_empty())) else {
            return Err(KeptBecause::Split.into());
        };
        if !self.destroyed.is_empty() && !journey.is_exact {
            return Err(KeptBecause::RedactionsUncertain.into());
        }
        new.stored_type.clone_from(&new.event_type);
        new.stored_version = new.event_version;
        let redacted = std::mem::take(&mut new.redacted);
        let plan = plan_of(schemas, &new);
        let voids = voids_of(plan, &new, &redacted, &self.destroyed)?;
        let anew = Anew { event: new, plan, voids, live: self.live.clone() };
        self.check(&anew)?;
        Ok(anew)
    }

    /// Checks that nothing is lost on the way, and that no sealed value would be stored in the clear or for another
    /// owner.
    fn check(&self, anew: &Anew<'_>) -> Result<(), Reason> {
        let draft = anew.draft().map_err(|error| Reason { because: KeptBecause::NotAppendable, error: Some(error) })?;
        let keeps_redactions = match &draft {
            // The stand-ins must be those of the plan, or readers of the copy would see other ones.
            Some(draft) => {
                draft.voids() == anew.voids.len()
                    && draft.opens_to(anew.plan.unwrap_or(self.plan)).0 == anew.event.payload
            }
            None => anew.voids.is_empty(),
        };
        if !keeps_redactions {
            return Err(KeptBecause::RedactionElsewhere.into());
        }
        // If no step changed the event, every place means the same as before.
        let loses = self.is_current && {
            let places: HashSet<&str> = draft.iter().flat_map(Draft::places).collect();
            self.places.iter().any(|place| !places.contains(place.as_str()))
        };
        let refused = match &self.secrets {
            Ok(secrets) if !loses => secrets.refuse(&anew.event.payload, draft.as_ref()),
            _ => Some(KeptBecause::InTheClear),
        };
        refused.map_or(Ok(()), |because| Err(because.into()))
    }
}

/// The void entries of an event that is written anew: one for each place that is redacted in it.
fn voids_of(
    plan: Option<&Plan>,
    event: &PersistedEvent,
    redacted: &[JsonPointer],
    destroyed: &[(KeyId, KeyScope)],
) -> Result<Voids, KeptBecause> {
    let Some(plan) = plan else {
        return if redacted.is_empty() { Ok(Voids::new()) } else { Err(KeptBecause::RedactionElsewhere) };
    };
    if redacted.iter().any(|place| plan.field_at(place).is_none()) {
        return Err(KeptBecause::RedactionElsewhere);
    }
    keys_of(plan, event, redacted, destroyed).ok_or(KeptBecause::RedactionAmbiguous)
}

fn plan_of<'s>(schemas: &'s Schemas, event: &PersistedEvent) -> Option<&'s Plan> {
    read_as(schemas, &event.stored_type, event.stored_version)
        .map(|known| &known.schema.plan)
        .filter(|plan| plan.protects())
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

impl<'s> Anew<'s> {
    /// The draft of the seal; `None` if there is nothing to seal.
    pub(super) fn draft(&self) -> Result<Option<Draft<'_>>, Error> {
        match self.plan {
            Some(plan) => Draft::with_voids(plan, self.event.as_stored(), &self.voids),
            None => check_unprotected_payload(self.event.event_id, &self.event.payload).map(|()| None),
        }
    }
}
