//! An event's metadata on its way to the current version.

use crate::json::document::Node;
use serde_json::Value;
use std::cell::OnceCell;
use std::fmt;

/// Metadata that is parsed when a step asks for it, and printed only if a step changed it.
#[derive(Clone, Default)]
pub(crate) struct Metadata<'a> {
    stored: Option<&'a [u8]>,
    value: OnceCell<Option<Value>>,
    is_changed: bool,
}

impl<'a> Metadata<'a> {
    pub(crate) fn stored(stored: Option<&'a [u8]>) -> Self {
        Self { stored, value: OnceCell::new(), is_changed: false }
    }

    pub(crate) fn changed(value: Option<Value>) -> Self {
        Self { stored: None, value: OnceCell::from(value), is_changed: true }
    }

    /// The metadata as a value. `None` if there is none, or if it is not JSON.
    pub(crate) fn value(&self) -> Option<&Value> {
        let read = |stored: &[u8]| Node::Text(std::str::from_utf8(stored).ok()?).into_value().ok();
        self.value.get_or_init(|| self.stored.and_then(read)).as_ref()
    }

    /// Is there metadata that is not JSON?
    pub(crate) fn is_unreadable(&self) -> bool {
        self.stored.is_some() && self.value().is_none()
    }

    /// The new bytes; `None` if they are the stored ones.
    pub(crate) fn new_bytes(&self) -> Option<Option<Vec<u8>>> {
        self.is_changed.then(|| self.value().map(|value| value.to_string().into_bytes()))
    }
}

/// Shows no contents: metadata may say who called, and from where.
impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metadata(…)")
    }
}
