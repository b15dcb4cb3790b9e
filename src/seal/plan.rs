//! The protection plan: what is protected in the payloads, or in the metadata, of one event type at one version,
//! compiled for the scanner.

use crate::event::EventDocument;
use crate::json::pointer::{Bound, JsonPointer, Pattern};
use crate::json::wanted::{Target, Wanted};
use crate::seal::in_the_clear::OwnerFn;
use crate::seal::normalize::Normalizers;
use crate::seal::stand_in::StandInFn;
use std::borrow::Cow;
use std::sync::Arc;

/// What is protected in the payloads of one event type at one version, or in the metadata.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Of which document.
    pub(crate) document: EventDocument,
    pub(crate) fields: Vec<Field>,
    /// Set if the whole payload is protected. Then `fields` is empty.
    pub(crate) whole: Option<Field>,
    /// The places at which the document names scope ids.
    pub(crate) captures: Vec<Pattern>,
    /// The places at which the other document names scope ids.
    pub(crate) beside: Vec<Pattern>,
    /// The places that are protected in the other document.
    pub(crate) protected_beside: Vec<Pattern>,
    /// Is the other document protected as a whole?
    pub(crate) beside_is_protected: bool,
    /// How the ids of owners are normalized.
    pub(crate) normalizers: Normalizers,
    /// What sealing looks for: fields and captures.
    pub(crate) to_seal: Wanted,
    /// What opening looks for: fields only.
    pub(crate) to_open: Wanted,
    /// What sealing looks for in the other document: scope ids.
    pub(crate) in_beside: Wanted,
    /// What functions must not see of the other document.
    pub(crate) hidden_beside: Wanted,
}

/// What follows a pointer in a message if it is one into the metadata.
pub(crate) const IN_METADATA: &str = " in the metadata";
/// What follows a pointer into the payload, where one into the metadata is expected.
pub(crate) const IN_PAYLOAD: &str = " in the payload";

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
    /// The JSON text that readers get instead of the value once its key is shredded: `null` if a function computes it.
    pub(crate) stand_in: Arc<str>,
    /// The function that computes that text; `None` if it is always the same. Never that of a whole payload.
    pub(crate) stand_in_by: Option<StandInFn>,
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
    /// The subject whose id the other document has at the place of this index in [`Plan::beside`].
    Beside { kind: Arc<str>, pointer: usize },
}

impl FieldOwner {
    /// The kind that the schema names; `None` if it is the aggregate's type.
    pub(crate) fn kind(&self) -> Option<&Arc<str>> {
        match self {
            Self::Aggregate { kind } => kind.as_ref(),
            Self::Subject { kind, .. }
            | Self::Member { kind, .. }
            | Self::Function { kind, .. }
            | Self::Beside { kind, .. } => Some(kind),
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
        for (index, pattern) in self.beside.iter().enumerate() {
            self.in_beside.add(pattern, Target::Capture(index));
        }
        self
    }

    /// Notes what the plan of the other document protects. Functions must not see it.
    pub(crate) fn knows(&mut self, other: &Plan) {
        self.beside_is_protected = other.whole.is_some();
        self.protected_beside = other.fields.iter().filter_map(|field| field.pattern.clone()).collect();
        for (index, pattern) in self.protected_beside.iter().enumerate() {
            self.hidden_beside.add(pattern, Target::Field(index));
        }
    }

    /// What follows a pointer into the document, in a message.
    pub(crate) fn document_is(&self) -> &'static str {
        match self.document {
            EventDocument::Payload => "",
            EventDocument::Metadata => IN_METADATA,
        }
    }

    /// The document, behind a pointer into it in a message about both.
    pub(crate) fn in_words(&self) -> &'static str {
        match self.document {
            EventDocument::Payload => IN_PAYLOAD,
            EventDocument::Metadata => IN_METADATA,
        }
    }

    /// What follows a pointer into the other document, in a message.
    pub(crate) fn beside_is(&self) -> &'static str {
        match self.document {
            EventDocument::Payload => IN_METADATA,
            EventDocument::Metadata => IN_PAYLOAD,
        }
    }

    pub(crate) fn protects(&self) -> bool {
        !self.fields.is_empty() || self.whole.is_some()
    }

    /// Does a function compute any of its stand-ins?
    pub(crate) fn computes_stand_ins(&self) -> bool {
        self.fields.iter().any(|field| field.stand_in_by.is_some())
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
