//! Where steps lead, all types together.

use crate::event::{EventType, EventVersion};
use crate::schema::TypeSchema;
use crate::schema::check::Found;
use crate::schema::problem::SchemaProblem;
use std::collections::{HashMap, HashSet};

pub(super) type Node = (EventType, u32);

/// Every step leads somewhere, and none back.
pub(super) fn check_targets(types: &HashMap<EventType, TypeSchema>, found: &mut Found) -> (HashMap<Node, Vec<Node>>, bool) {
    let mut edges: HashMap<Node, Vec<Node>> = HashMap::new();
    for (name, schema) in types {
        for (version, number) in schema.versions.iter().zip(schema.first..=u32::MAX) {
            let Some(step) = &version.step else { continue };
            let targets = step.targets(name, number);
            for (target, target_version) in &targets {
                let known = types.get(target).is_some_and(|schema| schema.version(EventVersion::new(*target_version)).is_some());
                if !known {
                    found.add(name, Some(number), SchemaProblem::UnknownTarget(target.clone(), *target_version));
                }
            }
            edges.insert((name.clone(), number), targets);
        }
    }
    let mut has_cycle = false;
    for start in edges.keys() {
        let mut seen: HashSet<&Node> = HashSet::new();
        let mut open: Vec<&Node> = edges.get(start).into_iter().flatten().collect();
        while let Some(node) = open.pop() {
            if node == start {
                has_cycle = true;
                found.add(&start.0, Some(start.1), SchemaProblem::Cycle);
                break;
            }
            if seen.insert(node) {
                open.extend(edges.get(node).into_iter().flatten());
            }
        }
    }
    (edges, has_cycle)
}

/// No chain is longer than allowed; there is no cycle. Said of the version it starts from, unless a longer one goes through that.
pub(super) fn check_lengths(edges: &HashMap<Node, Vec<Node>>, max: usize, found: &mut Found) {
    let mut lengths: HashMap<&Node, usize> = HashMap::new();
    // Backwards from what has no step: a node's length is known once those of its targets are.
    let mut open: Vec<&Node> = edges.keys().collect();
    while let Some(node) = open.pop() {
        let targets = edges.get(node).map_or(&[][..], Vec::as_slice);
        let missing: Vec<&Node> = targets.iter().filter(|target| edges.contains_key(*target) && !lengths.contains_key(target)).collect();
        if missing.is_empty() {
            let longest = targets.iter().filter_map(|target| lengths.get(target)).max().copied().unwrap_or_default();
            lengths.insert(node, longest + 1);
        } else {
            open.push(node);
            open.extend(missing);
        }
    }
    let inner: HashSet<&Node> = edges.values().flatten().collect();
    for (node, length) in lengths {
        if length > max && !inner.contains(node) {
            found.add(&node.0, Some(node.1), SchemaProblem::ChainTooLong(length, max));
        }
    }
}
