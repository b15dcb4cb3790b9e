//! Reads the members of an object in which something of every member is wanted.

use super::cursor::Read;
use super::{ScanError, Scanner};
use crate::json::pointer::Bound;
use std::collections::HashSet;
use std::sync::Arc;

impl Scanner<'_> {
    /// Reads the value of a member, in an object in which something of every member is wanted. `names` has the names
    /// that the object had so far.
    pub(super) fn any_member(
        &mut self,
        offset: usize,
        name: Option<&[u8]>,
        node: usize,
        names: &mut HashSet<Arc<str>>,
    ) -> Read {
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
            // No pointer can name such a member, so its value could not be sealed.
            let problem = "the name of a protected member is not valid Unicode";
            return Err(ScanError::Syntax { offset, problem }.into());
        };
        let name: Arc<str> = name.into();
        self.bound.push(Bound::Name(Arc::clone(&name)));
        if !names.insert(name) {
            return Err(ScanError::Duplicate { place: self.place(&self.wanted.nodes[node]) }.into());
        }
        self.value(Some(node))?;
        self.bound.pop();
        Ok(())
    }
}
