//! The protection plan: what is protected in the payloads of one event type at one version, compiled for the scanner.

use crate::json::pointer::{Bound, JsonPointer, Pattern};
use crate::json::wanted::{Target, Wanted};
use crate::seal::in_the_clear::OwnerFn;
use crate::seal::normalize::Normalizers;
use std::borrow::Cow;
use std::sync::Arc;

/// What is protected in the payloads of one event type at one version.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) fields: Vec<Field>,
    /// Set if the whole payload is protected. Then `fields` is empty.
    pub(crate) whole: Option<Field>,
    /// The places at which payloads name scope ids.
    pub(crate) captures: Vec<Pattern>,
    /// The places at which the metadata names scope ids.
    pub(crate) metadata: Vec<Pattern>,
    /// How the ids of owners are normalized.
    pub(crate) normalizers: Normalizers,
    /// What sealing looks for: fields and captures.
    pub(crate) to_seal: Wanted,
    /// What opening looks for: fields only.
    pub(crate) to_open: Wanted,
    /// What sealing looks for in the metadata: scope ids.
    pub(crate) in_metadata: Wanted,
}

/// What follows a pointer in a message if it is one into the metadata.
pub(crate) const IN_METADATA: &str = " in the metadata";

/// One protected place.
#[derive(Debug)]
pub(crate) struct Field {
    /// `None` for the whole payload.
    pub(crate) pattern: Option<Pattern>,
    /// The place, if the pattern has no `*` and no name in braces, and so means exactly one.
    pub(crate) place: Option<JsonPointer>,
    pub(crate) owner: FieldOwner,
    /// The plaintext is padded to a multiple of this many bytes.
    pub(crate) pad: usize,
    /// The JSON text that readers get instead of the value once its key is shredded.
    pub(crate) stand_in: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldOwner {
    /// The event's aggregate. The kind of the key scope is `kind`, or the aggregate type if that is `None`.
    Aggregate { kind: Option<Arc<str>> },
    /// The subject whose id stands at the place of this capture.
    Subject { kind: Arc<str>, capture: usize },
    /// The subject whose id is the name of the member for which this open step of the field's pattern stands.
    Member { kind: Arc<str>, binding: usize },
    /// The subject that this function names.
    Function { kind: Arc<str>, function: OwnerFn },
    /// The subject whose id the metadata has at the place of this index in [`Plan::metadata`].
    Metadata {
        kind: Arc<str>,
        pointer: usize,
        /// The caller of an append may name the subject, and the append writes the id down.
        by_caller: bool,
    },
}

impl FieldOwner {
    /// The kind that the schema names; `None` if it is the aggregate's type.
    pub(crate) fn kind(&self) -> Option<&Arc<str>> {
        match self {
            Self::Aggregate { kind } => kind.as_ref(),
            Self::Subject { kind, .. }
            | Self::Member { kind, .. }
            | Self::Function { kind, .. }
            | Self::Metadata { kind, .. } => Some(kind),
        }
    }
}

impl Field {
    /// The concrete place for these elements and members.
    pub(crate) fn place(&self, bound: &[Bound]) -> JsonPointer {
        match &self.place {
            Some(place) => place.clone(),
            None => JsonPointer::new_unchecked(self.place_text(bound)),
        }
    }

    /// As [`place`](Self::place), as text.
    pub(crate) fn place_text(&self, bound: &[Bound]) -> Cow<'_, str> {
        match (&self.place, &self.pattern) {
            (Some(place), _) => place.as_str().into(),
            (None, Some(pattern)) => pattern.at(bound).into(),
            (None, None) => "".into(),
        }
    }
}

impl Plan {
    /// Builds the trees for the scanner. Call it once fields and captures are complete.
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
        for (index, pattern) in self.metadata.iter().enumerate() {
            self.in_metadata.add(pattern, Target::Capture(index));
        }
        self
    }

    /// The place in the metadata to which an append writes the id of a subject of this kind that its caller names.
    pub(crate) fn caller(&self, of_kind: &str) -> Option<&Pattern> {
        self.fields.iter().chain(&self.whole).find_map(|field| match &field.owner {
            FieldOwner::Metadata { kind, pointer, by_caller: true } if **kind == *of_kind => {
                self.metadata.get(*pointer)
            }
            _ => None,
        })
    }

    pub(crate) fn protects(&self) -> bool {
        !self.fields.is_empty() || self.whole.is_some()
    }

    /// The stand-in for the value at `place`: that of its field, or `null` if the plan does not protect the place.
    pub(crate) fn stand_in(&self, place: &JsonPointer) -> &str {
        self.field_at(place).map_or("null", |field| &field.stand_in)
    }

    /// If this place or one around it is protected: how many tokens the protected place has.
    pub(crate) fn protected_above(&self, place: &JsonPointer) -> Option<usize> {
        let text = place.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        ends.enumerate()
            .find(|(_, end)| self.field_at(&JsonPointer::new_unchecked(&text[..*end])).is_some())
            .map(|(count, _)| count)
    }

    /// The field at exactly this place.
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
