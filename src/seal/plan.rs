//! What is protected in the payloads of one event type at one version, compiled for the scanner.

use crate::json::pointer::{JsonPointer, Pattern};
use crate::json::wanted::{Target, Wanted};
use std::borrow::Cow;
use std::sync::Arc;

/// The protection of one (type, version).
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) fields: Vec<Field>,
    /// Set if the whole payload is protected; then there are no fields.
    pub(crate) whole: Option<Field>,
    /// Where scope ids stand.
    pub(crate) captures: Vec<Pattern>,
    /// Fields and captures: what sealing looks for.
    pub(crate) to_seal: Wanted,
    /// Fields only: what opening looks for.
    pub(crate) to_open: Wanted,
}

/// One protected place.
#[derive(Debug)]
pub(crate) struct Field {
    /// `None` for the whole payload.
    pub(crate) pattern: Option<Pattern>,
    /// The place itself, if the pattern means just one.
    pub(crate) place: Option<JsonPointer>,
    pub(crate) owner: FieldOwner,
    /// The plaintext is padded to a multiple of this.
    pub(crate) pad: usize,
    /// The JSON text that stands in for the value once its key is shredded.
    pub(crate) stand_in: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldOwner {
    /// The event's aggregate; the kind is its type unless named.
    Aggregate { kind: Option<Arc<str>> },
    /// Whoever is named at the place of this capture.
    Subject { kind: Arc<str>, capture: usize },
}

impl Field {
    /// The concrete place for these array elements.
    pub(crate) fn place(&self, indexes: &[u32]) -> JsonPointer {
        match &self.place {
            Some(place) => place.clone(),
            None => JsonPointer::new_unchecked(self.place_text(indexes)),
        }
    }

    /// The same, as text.
    pub(crate) fn place_text(&self, indexes: &[u32]) -> Cow<'_, str> {
        match (&self.place, &self.pattern) {
            (Some(place), _) => place.as_str().into(),
            (None, Some(pattern)) => pattern.at(indexes).into(),
            (None, None) => "".into(),
        }
    }
}

impl Plan {
    /// Compiles the scanner's trees. Fields and captures must be complete.
    pub(crate) fn compile(mut self) -> Self {
        for (index, pattern) in
            self.fields.iter().enumerate().filter_map(|(index, field)| Some((index, field.pattern.as_ref()?)))
        {
            self.to_seal.add(pattern, Target::Field(index));
            self.to_open.add(pattern, Target::Field(index));
        }
        for (index, pattern) in self.captures.iter().enumerate() {
            self.to_seal.add(pattern, Target::Capture(index));
        }
        self
    }

    pub(crate) fn protects(&self) -> bool {
        !self.fields.is_empty() || self.whole.is_some()
    }

    /// What stands in for the value at `place`; `null` where the plan has nothing to say.
    pub(crate) fn stand_in(&self, place: &JsonPointer) -> &str {
        self.field_at(place).map_or("null", |field| &field.stand_in)
    }

    /// How many of a place's tokens lead to what is protected, if it is there or around it.
    pub(crate) fn protected_above(&self, place: &JsonPointer) -> Option<usize> {
        let text = place.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        ends.enumerate()
            .find(|(_, end)| self.field_at(&JsonPointer::new_unchecked(&text[..*end])).is_some())
            .map(|(count, _)| count)
    }

    /// What is protected just there.
    pub(crate) fn field_at(&self, place: &JsonPointer) -> Option<&Field> {
        if place.as_str().is_empty() {
            return self.whole.as_ref();
        }
        self.fields.iter().find(|field| match (&field.place, &field.pattern) {
            (Some(known), _) => known == place,
            (None, Some(pattern)) => pattern.matches(place),
            (None, None) => false,
        })
    }
}
