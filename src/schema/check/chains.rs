//! Checks of the chains of steps, across all types.

use crate::event::EventType;
use crate::schema::TypeSchema;
use crate::schema::check::Found;
use crate::schema::problem::SchemaProblem;
use crate::schema::type_version::TypeVersion;
use std::collections::{HashMap, HashSet};

/// The targets of the steps of all types.
pub(crate) struct Chains {
    pub(crate) targets: HashMap<TypeVersion, Vec<TypeVersion>>,
    pub(crate) has_cycle: bool,
}

impl Chains {
    /// Pairs of a type and another type from which steps lead to it.
    pub(crate) fn ancestors(&self) -> Vec<(EventType, EventType)> {
        let mut ancestors: Vec<(EventType, EventType)> = Vec::new();
        for (TypeVersion { event_type: from, .. }, targets) in &self.targets {
            let targets = targets.iter().map(|target| &target.event_type).filter(|target| *target != from);
            ancestors.extend(targets.map(|target| (target.clone(), from.clone())));
        }
        ancestors.sort_unstable();
        ancestors.dedup();
        ancestors
    }
}

/// Checks that every step leads to a declared version, and that no chain leads back to its start.
pub(crate) fn check_targets(types: &HashMap<EventType, TypeSchema>, found: &mut Found) -> Chains {
    let mut edges: HashMap<TypeVersion, Vec<TypeVersion>> = HashMap::new();
    for (name, schema) in types {
        for (at, version) in schema.numbered(name) {
            let Some(step) = &version.step else { continue };
            let targets = step.targets(&at);
            for target in targets.iter().filter(|target| target.find(types).is_none()) {
                found.add(
                    name,
                    Some(at.number()),
                    SchemaProblem::UnknownTarget(target.event_type.clone(), target.number()),
                );
            }
            edges.insert(at, targets);
        }
    }
    let mut has_cycle = false;
    for start in edges.keys() {
        let mut seen: HashSet<&TypeVersion> = HashSet::new();
        let mut open: Vec<&TypeVersion> = edges.get(start).into_iter().flatten().collect();
        while let Some(node) = open.pop() {
            if node == start {
                has_cycle = true;
                found.add(&start.event_type, Some(start.number()), SchemaProblem::Cycle);
                break;
            }
            if seen.insert(node) {
                open.extend(edges.get(node).into_iter().flatten());
            }
        }
    }
    Chains { targets: edges, has_cycle }
}

/// Checks that no chain is longer than allowed. The problem is reported at the start of the longest chain only. Must
/// not be called if there is a cycle.
pub(crate) fn check_lengths(edges: &HashMap<TypeVersion, Vec<TypeVersion>>, max: usize, found: &mut Found) {
    let mut lengths: HashMap<&TypeVersion, usize> = HashMap::new();
    // The length of a node is known once the lengths of its targets are.
    let mut open: Vec<&TypeVersion> = edges.keys().collect();
    while let Some(node) = open.pop() {
        let targets = edges.get(node).map_or(&[][..], Vec::as_slice);
        let missing: Vec<&TypeVersion> =
            targets.iter().filter(|target| edges.contains_key(*target) && !lengths.contains_key(target)).collect();
        if missing.is_empty() {
            let longest = targets.iter().filter_map(|target| lengths.get(target)).max().copied().unwrap_or_default();
            lengths.insert(node, longest + 1);
        } else {
            open.push(node);
            open.extend(missing);
        }
    }
    let inner: HashSet<&TypeVersion> = edges.values().flatten().collect();
    for (node, length) in lengths {
        if length > max && !inner.contains(node) {
            found.add(&node.event_type, Some(node.number()), SchemaProblem::ChainTooLong(length, max));
        }
    }
}
