//! An event's metadata on its way to the current version.

use crate::event::{PersistedEvent, Sealed};
use crate::json::document::Node;
use crate::json::number::is_same_value;
use crate::json::pointer::JsonPointer;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

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

    /// Says what is redacted and what is sealed in these metadata, if steps have changed them. A step over a value
    /// can't say where it put one. So a place counts only if its value has not changed.
    pub(crate) fn mark(&self, before: &Metadata<'_>, event: &mut PersistedEvent) {
        if !self.is_changed {
            return;
        }
        let at = |metadata: Option<&'_ Value>, place: &JsonPointer| metadata?.pointer(place.as_str()).cloned();
        // Elements of an array may have changed places, so all of the array must be as it was.
        let is_kept = |place: &JsonPointer| {
            let ends = place.as_str().match_indices('/').map(|(end, _)| end);
            let around = ends.map(|end| JsonPointer::new_unchecked(&place.as_str()[..end]));
            let array = around.into_iter().find(|around| at(before.value(), around).is_some_and(|it| it.is_array()));
            let place = array.as_ref().unwrap_or(place);
            match (at(before.value(), place), at(self.value(), place)) {
                (Some(before), Some(after)) => is_same_value(&before, &after),
                _ => false,
            }
        };
        event.redacted_metadata.retain(&is_kept);
        let places = event.sealed_metadata.places().into_iter().filter(|(place, _)| is_kept(place));
        event.sealed_metadata = Sealed::by(Arc::new(places.collect::<Vec<_>>()));
    }

    /// The metadata as they are now.
    pub(crate) fn bytes(&self) -> Option<Cow<'a, [u8]>> {
        match self.new_bytes() {
            Some(new) => new.map(Cow::Owned),
            None => self.stored.map(Cow::Borrowed),
        }
    }

    /// May a step have moved what was sealed in them to where nothing says that it was?
    pub(crate) fn may_hide(&self, event: &PersistedEvent) -> bool {
        let is_sealed = !event.redacted_metadata.is_empty() || !event.sealed_metadata.places().is_empty();
        self.is_changed && is_sealed
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
