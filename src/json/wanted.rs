//! The places that a scan looks for, arranged as a tree.

use crate::json::pointer::{Pattern, Token, array_index};

/// The wanted places, as a tree of the steps of their pointers. Nodes refer to each other by their indexes in `nodes`;
/// the root has index 0.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The children by the name of the next step, sorted by name.
    pub(crate) children: Vec<(Box<str>, usize)>,
    /// One bit for each child: [`bit_of`] its name. Most names that are not wanted have another one.
    pub(crate) bits: u64,
    /// Those children whose names are array indexes, sorted by index.
    pub(crate) elements: Vec<(u32, usize)>,
    /// The child for a `*`.
    pub(crate) each: Option<usize>,
    /// The child for every member of an object.
    pub(crate) member: Option<usize>,
    /// The index of the field that is wanted here.
    pub(crate) field: Option<usize>,
    /// The index of the capture that is wanted here.
    pub(crate) capture: Option<usize>,
    /// A field is wanted here or below, so the document must have the right shape here.
    pub(crate) leads_to_field: bool,
    /// The parent node, and the step that leads from it to this one.
    pub(crate) came: Option<(usize, Token)>,
}

/// What is wanted of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The value is protected. The index is that of the field in the plan.
    Field(usize),
    /// The value is the id of a key scope. The index is that of the capture in the plan.
    Capture(usize),
}

impl Wanted {
    pub(crate) fn add(&mut self, pattern: &Pattern, target: Target) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let is_field = matches!(target, Target::Field(_));
        let mut at = 0;
        self.nodes[at].leads_to_field |= is_field;
        for token in pattern.tokens() {
            at = self.child_or_new(at, token);
            self.nodes[at].leads_to_field |= is_field;
        }
        match target {
            Target::Field(index) => self.nodes[at].field = Some(index),
            Target::Capture(index) => self.nodes[at].capture = Some(index),
        }
    }

    fn child_or_new(&mut self, parent: usize, token: &Token) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[parent];
        let found = match token {
            Token::Each => *node.each.get_or_insert(new),
            Token::Member => *node.member.get_or_insert(new),
            Token::Name(name) => match node.children.binary_search_by(|(known, _)| (**known).cmp(name)) {
                Ok(at) => node.children[at].1,
                Err(at) => {
                    node.bits |= bit_of(name.as_bytes());
                    node.children.insert(at, (name.as_str().into(), new));
                    if let Some(index) = array_index(name) {
                        let at = node.elements.partition_point(|(known, _)| *known < index);
                        node.elements.insert(at, (index, new));
                    }
                    new
                }
            },
        };
        if found == new {
            self.nodes.push(Node { came: Some((parent, token.clone())), ..Node::default() });
        }
        found
    }
}

/// A bit that stands for the length and the first byte of a name.
#[inline]
pub(crate) fn bit_of(name: &[u8]) -> u64 {
    1 << ((name.len() + usize::from(name.first().copied().unwrap_or_default())) % 64)
}
