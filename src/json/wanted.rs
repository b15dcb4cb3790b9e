//! The places that a scan looks for, as a tree.

use crate::json::pointer::{Pattern, Token, array_index};

/// The wanted places, as a tree of their steps.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Sorted by name.
    pub(crate) children: Vec<(Box<str>, usize)>,
    /// The same nodes, of names that are array indexes, sorted by index.
    pub(crate) elements: Vec<(u32, usize)>,
    pub(crate) each: Option<usize>,
    pub(crate) field: Option<usize>,
    pub(crate) capture: Option<usize>,
    /// A field is wanted here or below: the shape on the way to it matters.
    pub(crate) leads_to_field: bool,
    /// The last step of the way here, and the node it was taken from.
    pub(crate) came: Option<(usize, Token)>,
}

/// What is wanted of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The value itself: it is protected.
    Field(usize),
    /// The value names a key scope.
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
            Token::Name(name) => match node.children.binary_search_by(|(known, _)| (**known).cmp(name)) {
                Ok(at) => node.children[at].1,
                Err(at) => {
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
