//! Finds the sealed places of a payload after a step that can't say where it puts values. The places of redactions are
//! found first, by [`redaction`](super::redaction).
//!
//! Nothing is guessed: a place is listed if the new version and the payload say whose it is, or if the step left it as
//! it was.

use crate::json::document::{Node, way};
use crate::json::number::is_same_value;
use crate::json::pointer::{JsonPointer, Places, Token, array_index};
use crate::keys::names::KeyScope;
use crate::schema::upcast::redaction::{Beside, Owners, places};
use crate::seal::plan::Plan;
use serde_json::Value;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

/// The owners of sealed values, by place.
pub(crate) type SealedBy = BTreeMap<JsonPointer, KeyScope>;

/// An event before a step.
pub(super) struct BeforeStep<'p, 'a> {
    pub(super) payload: Node<'a>,
    pub(super) sealed: &'p SealedBy,
    pub(super) redacted: &'p [JsonPointer],
}

/// What is known after the step.
pub(super) struct AfterStep<'p> {
    pub(super) payload: &'p Value,
    /// The redacted places.
    pub(super) redacted: &'p [JsonPointer],
    /// `None` if the version that the step leads to is not registered.
    pub(super) plan: Option<&'p Plan>,
    /// Is it one of several parts? In a part, the same pointer may be another place.
    pub(super) is_part: bool,
}

impl BeforeStep<'_, '_> {
    /// The sealed places after the step.
    pub(super) fn sealed_after(&mut self, after: &AfterStep<'_>, owners: &Owners, beside: Beside<'_>) -> SealedBy {
        let mut found = SealedBy::new();
        let erased = Places::of(after.redacted);
        let clear = OnceCell::new();
        let beside = Beside { clear: Some(&clear), ..beside };
        for field in after.plan.into_iter().flat_map(|plan| plan.fields.iter().chain(&plan.whole)) {
            let Some(plan) = after.plan else { continue };
            let root = || vec![(JsonPointer::root(), Vec::new(), after.payload)];
            let held = field.pattern.as_ref().map_or_else(root, |pattern| places(after.payload, pattern));
            for (place, bound, value) in held {
                let is_redacted = erased.at(&place).is_some_and(Places::is_place);
                let owner = if is_redacted {
                    let named = owners.shredded(plan, field, &bound, after.payload, beside);
                    named.or_else(|| self.sealed.get(&place).cloned())
                } else if value.is_null() {
                    None
                } else if let Some(named) = owners.live(plan, field, &bound, after.payload, beside) {
                    let stood_in_the_clear = !self.sealed.contains_key(&place) && self.held(&place, value);
                    (!stood_in_the_clear).then_some(named)
                } else {
                    None
                };
                if let Some(owner) = owner {
                    found.insert(place, owner);
                }
            }
        }
        if !after.is_part {
            self.add_kept(after, &mut found);
        }
        for place in after.redacted {
            if let (false, Some(owner)) = (found.contains_key(place), owners.only_shredded()) {
                found.insert(place.clone(), owner.clone());
            }
        }
        found
    }

    /// Adds the places that the step left as they were.
    fn add_kept(&mut self, after: &AfterStep<'_>, found: &mut SealedBy) {
        let (erased_before, erased) = (Places::of(self.redacted), Places::of(after.redacted));
        let is_in = |places: &Places, place: &JsonPointer| places.at(place).is_some_and(Places::is_place);
        let owners_in_arrays = owners_in_arrays(self.sealed);
        for (place, owner) in self.sealed {
            let Some(value) = after.payload.pointer(place.as_str()).filter(|_| !found.contains_key(place)) else {
                continue;
            };
            // A place that was redacted and is not any more holds another value, or nobody can tell. If the elements of
            // an array have several owners, they may have changed places.
            if is_in(&erased, place) == is_in(&erased_before, place)
                && owners_in_arrays.get(&any_element(place)).is_none_or(Option::is_some)
                && self.held(place, value)
            {
                found.insert(place.clone(), owner.clone());
            }
        }
    }

    /// Did the payload have this value there?
    fn held(&mut self, place: &JsonPointer, value: &Value) -> bool {
        let tokens: Vec<Token> = place.tokens().map(Token::Name).collect();
        match self.payload.get(&way(&tokens)) {
            Ok(Some(node)) => node.clone().into_value().is_ok_and(|before| is_same_value(&before, value)),
            _ => false,
        }
    }
}

/// For places in arrays, with `*` for the indexes: the owner that all elements have, or `None` if they have several.
fn owners_in_arrays(sealed: &SealedBy) -> HashMap<Vec<Token>, Option<&KeyScope>> {
    let mut owners: HashMap<Vec<Token>, Option<&KeyScope>> = HashMap::new();
    for (place, owner) in sealed {
        let known = owners.entry(any_element(place)).or_insert(Some(owner));
        if *known != Some(owner) {
            *known = None;
        }
    }
    owners
}

/// The tokens of a place, with `*` for what may be the index of an array.
fn any_element(place: &JsonPointer) -> Vec<Token> {
    let token = |token: String| if array_index(&token).is_some() { Token::Each } else { Token::Name(token) };
    place.tokens().map(token).collect()
}

/// Leaves out the places that lie inside another of the same owner.
pub(super) fn outermost(sealed: SealedBy) -> Vec<(JsonPointer, KeyScope)> {
    let mut kept: Vec<(JsonPointer, KeyScope)> = Vec::with_capacity(sealed.len());
    let is_inside = |kept: &[(JsonPointer, KeyScope)], place: &JsonPointer, owner: &KeyScope| {
        let text = place.as_str();
        text.match_indices('/').any(|(end, _)| {
            kept.binary_search_by(|(known, _)| known.as_str().cmp(&text[..end])).is_ok_and(|at| kept[at].1 == *owner)
        })
    };
    // A place sorts behind those around it.
    for (place, owner) in sealed {
        if !is_inside(&kept, &place, &owner) {
            kept.push((place, owner));
        }
    }
    kept
}
