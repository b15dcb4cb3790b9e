//! Finds the members of an object that are wanted, by their names.

use crate::json::wanted::{Node, bit_of};

/// Which children of a node an object has had so far.
pub(super) enum Seen {
    Few(u64),
    Many(Vec<bool>),
}

impl Seen {
    pub(super) fn new(children: usize) -> Self {
        if children <= 64 { Self::Few(0) } else { Self::Many(vec![false; children]) }
    }

    /// Returns false if the child was there already.
    pub(super) fn insert(&mut self, index: usize) -> bool {
        match self {
            Self::Few(bits) => {
                let bit = 1 << index;
                let new = *bits & bit == 0;
                *bits |= bit;
                new
            }
            Self::Many(seen) => !std::mem::replace(&mut seen[index], true),
        }
    }
}

/// The child of this name: its place among the children, and its index in the tree.
#[inline]
pub(super) fn find(node: &Node, name: &[u8]) -> Option<(usize, usize)> {
    if node.bits & bit_of(name) == 0 {
        return None;
    }
    let children = &node.children;
    let place = if children.len() <= 8 {
        children.iter().position(|(known, _)| known.as_bytes() == name)
    } else {
        children.binary_search_by(|(known, _)| known.as_bytes().cmp(name)).ok()
    };
    place.map(|place| (place, children[place].1))
}
