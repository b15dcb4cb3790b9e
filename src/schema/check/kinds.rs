//! Finds scope kinds that can be confused. `Customer` and `customer` have keys of their own: a shred of one of them
//! leaves half of a person's data readable.

use crate::event::EventType;
use crate::schema::check::Found;
use crate::schema::problem::{ALL_EVENTS, SchemaProblem};
use crate::schema::{TypeSchema, VersionSchema};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The kinds that the schemas declare.
#[derive(Default)]
pub(crate) struct Kinds {
    /// Each kind, with the characters by which it is compared.
    declared: BTreeMap<Arc<str>, Vec<char>>,
    /// Pairs of kinds that `distinct_kinds` declares, in both orders.
    distinct: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// Collects the kinds of all types, and of the metadata of all events. Adds a problem for each pair that is too
/// similar.
pub(crate) fn check_kinds(
    types: &HashMap<EventType, TypeSchema>,
    unregistered: &VersionSchema,
    distinct: Vec<(Arc<str>, Arc<str>)>,
    found: &mut Found,
) -> Kinds {
    let mut sorted: Vec<_> = types.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let versions = sorted.into_iter().flat_map(|(name, schema)| {
        schema.versions.iter().zip(schema.first..=u32::MAX).map(move |(version, number)| (name, Some(number), version))
    });
    let all_events = EventType::from(ALL_EVENTS);
    let mut kinds = Kinds::default();
    for (a, b) in distinct {
        kinds.distinct.insert((Arc::clone(&b), Arc::clone(&a)));
        kinds.distinct.insert((a, b));
    }
    let mut places: HashMap<Arc<str>, (&EventType, Option<u32>)> = HashMap::new();
    for (name, number, version) in versions.chain([(&all_events, None, unregistered)]) {
        for field in version.plans().into_iter().flat_map(|plan| plan.fields.iter().chain(&plan.whole)) {
            let Some(kind) = field.owner.kind() else { continue };
            if kinds.declared.contains_key(kind) {
                continue;
            }
            for other in kinds.similar_to(kind) {
                if let Some((event_type, event_version)) = places.get(other) {
                    let problem = SchemaProblem::SimilarKinds {
                        kind: kind.to_string(),
                        other: other.to_string(),
                        event_type: (*event_type).clone(),
                        event_version: *event_version,
                    };
                    found.add(name, number, problem);
                }
            }
            kinds.declared.insert(Arc::clone(kind), folded(kind));
            places.insert(Arc::clone(kind), (name, number));
        }
    }
    kinds
}

impl Kinds {
    pub(crate) fn declared(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(|kind| &**kind)
    }

    /// The declared kinds that `kind` is too similar to. None if `kind` is declared itself.
    pub(crate) fn similar_to(&self, kind: &str) -> Vec<&Arc<str>> {
        if self.declared.contains_key(kind) {
            return Vec::new();
        }
        let letters = folded(kind);
        let similar = self
            .declared
            .iter()
            .filter(|(other, known)| is_similar(&letters, known) && !self.are_distinct(kind, other));
        similar.map(|(other, _)| other).collect()
    }

    fn are_distinct(&self, a: &str, b: &str) -> bool {
        self.distinct.iter().any(|(one, other)| **one == *a && **other == *b)
    }
}

/// The characters of a kind in lower case, without white space.
fn folded(kind: &str) -> Vec<char> {
    kind.chars().filter(|char| !char.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Are these equal, or equal but for one letter that is added, left out, replaced, or swapped with its neighbour? Any
/// two names of one letter differ by that little, so for them only equality counts.
fn is_similar(a: &[char], b: &[char]) -> bool {
    if a.len().min(b.len()) < 2 {
        return a == b;
    }
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let same = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - same], &b[..b.len() - same]);
    match (a, b) {
        ([] | [_], [] | [_]) => true,
        ([a1, a2], [b1, b2]) => a1 == b2 && a2 == b1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_similar_by_case_white_space_and_one_edit() {
        let similar = |a: &str, b: &str| is_similar(&folded(a), &folded(b)) && is_similar(&folded(b), &folded(a));
        for other in [
            "customer",
            " Customer",
            "CUSTOMER ",
            "Customers",
            "Custmer",
            "Custoner",
            "Cutsomer",
            "customers",
            "Cus tomer",
        ] {
            assert!(similar("Customer", other), "{other}");
        }
        for other in ["Consumers", "Guest", "Custom", "Customer2B", "Cuostmre", ""] {
            assert!(!similar("Customer", other), "{other}");
        }
        assert!(similar("G", "g ") && !similar("G", "H") && !similar("G", ""));
    }
}
