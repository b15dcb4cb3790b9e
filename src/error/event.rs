//! What is wrong with one event: append refuses it, it is not stored as it was written, or it does not fit the schemas
//! or the Rust types.

use crate::error::{ErrorKind, StepError, describe};
use crate::event::{EventType, EventVersion};
use crate::json::pointer::JsonPointer;
use crate::keys::names::KeyId;

/// What is wrong with one event: see [`Error::Event`](crate::Error::Event), which says which one.
///
/// The variants come in three groups:
/// - Append refuses the event, and nothing was stored: from [`InvalidPayload`](Self::InvalidPayload) to
///   [`CatchAll`](Self::CatchAll). Their kind is [`InvalidInput`](ErrorKind::InvalidInput). Maintenance reports them
///   for stored events too. Reads report two of them for stored events: [`PrivateMember`](Self::PrivateMember) and
///   [`LimitExceeded`](Self::LimitExceeded).
/// - The event is stored, and can't be opened: from [`Tampered`](Self::Tampered) to [`MissingKey`](Self::MissingKey).
///   An erased value is no error: readers get its stand-in.
/// - The event does not fit the schemas or the Rust types: from [`UnknownType`](Self::UnknownType) to
///   [`UnexpectedVersion`](Self::UnexpectedVersion). Correct the schemas or the types, or deploy the newer code.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventFault {
    /// One of the following, in the event's metadata and not in its payload.
    #[error("in the metadata: {0}")]
    InMetadata(Box<EventFault>),

    // ---- what append refuses
    /// The payload is not valid JSON, but its type has protected fields. Only JSON has fields.
    #[error(
        "the payload is not valid JSON at byte {offset} ({problem}): fields can be protected in JSON objects only; \
         protect_whole() takes any bytes"
    )]
    InvalidPayload {
        /// Where the JSON stops being valid, in bytes from the start of the payload.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// No step could read the payload, and the schemas were built with
    /// [`deny_unreadable_payloads`](crate::schema::SchemasBuilder::deny_unreadable_payloads).
    #[error(
        "no step could read the payload at line {line} column {column}: pass JSON without numbers beyond f64, \
         unpaired surrogates and nesting deeper than 127"
    )]
    UnreadablePayload {
        /// Where serde_json gives up.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// The metadata is not JSON, or names the owner of protected values twice, or is JSON that the store's column can't
    /// hold. PostgreSQL's JSONB holds no `\u0000`, no unpaired surrogate, no number of more than 131,072 digits before
    /// or 16,383 behind the point, and no document that is nested deeper than 6,000 levels or longer than 32 MiB.
    #[error("the metadata {problem}")]
    InvalidMetadata {
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// The event is [for a subject](crate::NewEvent::for_subject) of a kind that its schema does not take from the
    /// caller. Nothing was stored.
    #[error(
        "the event is for a {kind}, but {event_type} version {event_version} takes no {kind} from the caller: let \
         caller({kind:?}) own a place in its schema, or leave for_subject out"
    )]
    NotFromCaller {
        /// The event's type.
        event_type: EventType,
        /// The event's version.
        event_version: EventVersion,
        /// The kind of the subject.
        kind: String,
    },
    /// The event is [for a subject](crate::NewEvent::for_subject), and its metadata has something else where the
    /// subject's id is to be written. Nothing was stored.
    #[error(
        "the event is for a {kind} whose id is written at {pointer} in the metadata, which has something else there: \
         leave it out of the metadata, or name the same subject"
    )]
    OtherSubject {
        /// The kind of the subject.
        kind: String,
        /// Where its id is to be written: a pointer into the metadata.
        pointer: String,
    },
    /// The event is [for a subject](crate::NewEvent::for_subject), and this store has no schemas that say where the
    /// subject's id is written. Nothing was stored.
    #[error(
        "the event is for a subject, and nothing has written down whose it is: append it to a SealedStore, or pass it \
         through Sealer::seal first"
    )]
    SubjectNotWritten,
    /// The payload's root has a member that this crate reserves for its header.
    #[error(
        "the payload's root has a member named \"$seal\", which is reserved: rename it, or look whether the payload \
         is sealed already"
    )]
    ReservedMember,
    /// A member on the path of a protected field occurs twice in one object.
    #[error("a member at {pointer} occurs twice, so which one is protected is ambiguous: write it once")]
    DuplicateMember {
        /// The member.
        pointer: JsonPointer,
    },
    /// The payload has something else where a protected pointer needs an object or an array.
    #[error("{pointer} must be {expected} for the protected fields below it: correct the payload or the schema")]
    ShapeMismatch {
        /// The place.
        pointer: JsonPointer,
        /// What the schema needs there.
        expected: &'static str,
    },
    /// A protected field is present, but neither the payload nor the metadata says to whom it belongs: the pointer that
    /// names its key scope leads to nothing, or to `null`.
    #[error(
        "{field} is protected by the {kind} named at {pointer}, which is absent or null: set it, or leave the field \
         out, to append the event; for one that is stored, let this version of the schema name another owner, such as \
         the aggregate"
    )]
    MissingScopeId {
        /// The protected field.
        field: JsonPointer,
        /// The kind of scope.
        kind: String,
        /// Where its id should be: a pointer into the payload, or one into the metadata (`/actor/id in the metadata`).
        pointer: String,
    },
    /// The value that names a key scope is neither a string nor an integer, or is a string that can't be a scope id.
    #[error("the {kind} named at {pointer} {problem}: scope ids are non-empty strings without NUL, or integers")]
    InvalidScopeId {
        /// The kind of scope.
        kind: String,
        /// Where its id is: a pointer into the payload, or one into the metadata (`/actor/id in the metadata`).
        pointer: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A [function that names an owner](crate::Owner::by) names nobody for a protected field, or fails. Nothing was
    /// stored.
    #[error(
        "{field} is protected by the {kind} that function {by} names, but {problem}: correct the event, or leave the \
         field out, or correct the function under a new name"
    )]
    NotNamed {
        /// The protected field.
        field: JsonPointer,
        /// The kind of scope.
        kind: String,
        /// The name of the function.
        by: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The id of an owner can't be [normalized](crate::Owner::normalize) as the schemas say. Nothing was stored.
    #[error(
        "the id of a {kind} in this event can't be normalized ({by}): {problem}; correct the id, or what normalizes it"
    )]
    NotNormalized {
        /// The kind of scope.
        kind: String,
        /// What normalizes it: a [`Normalize`](crate::Normalize) as it is displayed.
        by: String,
        /// What is wrong with the result.
        problem: &'static str,
    },
    /// A member of the payload, at any depth, has a name that serde_json keeps for itself (`$serde_json::private::…`):
    /// it would read the object around that member as something else, such as JSON in a text, and so hide values from
    /// protection. Append and decode refuse such a member anywhere, protected or not. Names that are protected, or may
    /// have been, are shown as `***`.
    #[error(
        "the name of the member {pointer} is one that serde_json keeps for itself, and would read as something else: \
         give it another name to append it; of a stored event, take the payload's bytes, or move or remove the member \
         with a declarative step"
    )]
    PrivateMember {
        /// The member.
        pointer: JsonPointer,
    },
    /// The event was made of a Rust value in which a [`Sensitive`](crate::Sensitive) stands at a place that the schema
    /// does not protect, so it would be stored in the clear. Nothing was stored.
    #[error(
        "{pointer} is a Sensitive, but {event_type} version {event_version} does not protect it, so it would be \
         stored in the clear: protect the place in the schema (of a type that is registered), remove an \
         #[event(plain)] on the way to it, or take the Sensitive away if everybody may read it"
    )]
    SensitiveInTheClear {
        /// The event's type.
        event_type: EventType,
        /// The event's version.
        event_version: EventVersion,
        /// The place. If the `Sensitive` is part of a text or the name of a member there, this place would have to be
        /// protected.
        pointer: JsonPointer,
    },
    /// The event exceeds a limit of the sealed format, or a lower limit of this process.
    #[error("{what} is over the limit of {limit}: make the payload smaller, or several events of it")]
    LimitExceeded {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An event in the catch-all of an enum with a derive of [`Events`](crate::Events) was to be appended. It was read
    /// from the
    /// store, so it is stored already.
    #[error(
        "{target} has no variant for {event_type} and holds it as it was read, so it is stored already: append a new \
         event of a type that has a variant"
    )]
    CatchAll {
        /// The event's type.
        event_type: EventType,
        /// The Rust type.
        target: &'static str,
    },
    // ---- what is stored, and not as it was written
    /// A seal, or a place that it covers, is not what was written. Restore the event, and find out who could have
    /// altered it.
    #[error(
        "the seal does not hold ({problem}): the stored event was altered, moved or belongs to another namespace; \
         restore it from a backup, and find out who could write it"
    )]
    Tampered {
        /// What does not hold.
        problem: &'static str,
    },
    /// A protected place holds a value that no seal covers: somebody wrote it past the store, or it was stored before
    /// the store was wrapped, which [`accept_plaintext`](crate::schema::SchemasBuilder::accept_plaintext) allows.
    #[error(
        "{pointer} is protected, but its value is not covered by a seal: if it was stored before the store was \
         wrapped, build the schemas with accept_plaintext({event_type:?})"
    )]
    Unsealed {
        /// The event's type as it is stored.
        event_type: EventType,
        /// The place.
        pointer: JsonPointer,
    },
    /// A value is sealed under the key of one subject, but the payload names another subject as its owner. The id that
    /// names the owner is not authenticated: either somebody altered it, or the schema has changed what it says of this
    /// version since the event was sealed. Reads go by the seal. Maintenance stops, because it must not seal the value
    /// for another owner.
    #[error(
        "the value at {pointer} is sealed for another owner than the payload names: find out who altered what names \
         it and restore that, or let the schema name the owner of this version as it did when the event was sealed"
    )]
    OtherOwner {
        /// The place of the value.
        pointer: JsonPointer,
    },
    /// The seal uses a format, suite or mode that this version does not know: upgrade the reader.
    #[error("{what} {value} of the seal is not supported by this version of eventseal: upgrade the reader")]
    Unsupported {
        /// Format, suite, part or mode.
        what: &'static str,
        /// The number that the seal has there.
        value: u8,
    },
    /// A sealed payload would have been handed out as if it were plaintext: its type is not registered, or the event
    /// was not read through the [`SealedStore`](crate::SealedStore). Its protected values are ciphertext, whether their
    /// keys were shredded or not.
    #[error(
        "the payload of {event_type} is sealed, and nothing has opened it: read it through a SealedStore or Sealer \
         with schemas that register {event_type}; a service that carries sealed events on builds its schemas with \
         pass_through_sealed()"
    )]
    StillSealed {
        /// The event's type.
        event_type: EventType,
    },
    /// The key table has no row for a key that a seal names. This is not an erasure: rows of shredded keys stay.
    #[error(
        "data key {key_id} is not in the key table: restore the table from a backup, or check that the right database \
         is used"
    )]
    MissingKey {
        /// The key.
        key_id: KeyId,
    },
    // ---- what schemas and Rust types say
    /// The schemas do not register the type of the event that is appended or read.
    #[error(
        "type {event_type} is not registered: add event({event_type:?}) to the schemas, ask only for the types that \
         are registered (EventFilter::event_types), or build the schemas with allow_unknown_types()",
        event_type = event_type.as_str()
    )]
    UnknownType {
        /// The event's type.
        event_type: EventType,
    },
    /// The schemas do not allow events of this version to be appended.
    #[error("{event_type} version {event_version} can't be appended: {hint}")]
    UndeclaredVersion {
        /// The event's type.
        event_type: EventType,
        /// The event's version.
        event_version: EventVersion,
        /// What to do.
        hint: String,
    },
    /// The stored version is newer than the newest that the process knows: deploy the newer code.
    #[error(
        "{event_type} version {event_version} is newer than version {known}, the newest this process knows: deploy \
         the newer code, or build the schemas with pass_through_newer()"
    )]
    NewerVersion {
        /// The event's type as it is stored.
        event_type: EventType,
        /// The event's version as it is stored.
        event_version: EventVersion,
        /// The newest version registered.
        known: EventVersion,
    },
    /// The stored version is older than any that is registered, or the event is stored without a version.
    #[error("{event_type} {}", describe::gap(*event_version, *oldest))]
    UnknownVersion {
        /// The event's type as it is stored.
        event_type: EventType,
        /// The event's version as it is stored; 0 means that it is stored without one.
        event_version: EventVersion,
        /// The oldest version registered.
        oldest: EventVersion,
    },
    /// A step of the schemas failed. The source is the error that it returned.
    #[error("the step from {event_type} version {from} ({step}) failed: {problem}")]
    Upcast {
        /// The type the step starts from.
        event_type: EventType,
        /// The version the step starts from.
        from: EventVersion,
        /// Which step, such as `typed, to OrderPlaced version 2`.
        step: String,
        /// What happened, without payload values.
        problem: String,
        /// The error that the step returned. `None` if the step panicked or its payload could not be read, or if the
        /// error was one of serde_json, which quotes values.
        #[source]
        source: Option<StepError>,
    },
    /// The payload does not fit the Rust type that it is decoded into.
    #[error("{event_type} version {event_version} does not decode into {target}: {problem}")]
    Decode {
        /// The event's type.
        event_type: EventType,
        /// The version of the payload.
        event_version: EventVersion,
        /// The Rust type.
        target: &'static str,
        /// What does not fit, without payload values.
        problem: String,
    },
    /// The event is of a type that a [`Events`](crate::Events) does not decode.
    #[error(
        "{target} decodes no {event_type}: give it a variant for that type, or a catch-all (`#[event(other)]`), or \
         read other types only"
    )]
    UnexpectedType {
        /// The event's type.
        event_type: EventType,
        /// The Rust type.
        target: &'static str,
    },
    /// The event is of another version than the Rust type that its payload is decoded into.
    #[error(
        "{event_type} version {event_version} can't be decoded into {target}, which is of version {expected}: read it \
         through schemas that lead to that version, or deploy the code that knows {event_version} if that is newer"
    )]
    UnexpectedVersion {
        /// The event's type.
        event_type: EventType,
        /// The version of its payload.
        event_version: EventVersion,
        /// The version that the Rust type declares.
        expected: EventVersion,
        /// The Rust type.
        target: &'static str,
    },
}

impl EventFault {
    /// What is wrong, in whichever document it is.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::InMetadata(fault) => fault,
            fault => fault,
        }
    }

    /// This fault, as one of the metadata.
    pub(crate) fn in_metadata(self) -> Self {
        match self {
            fault @ (Self::InMetadata(_) | Self::InvalidMetadata { .. }) => fault,
            fault => Self::InMetadata(Box::new(fault)),
        }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidPayload { .. }
            | Self::UnreadablePayload { .. }
            | Self::InvalidMetadata { .. }
            | Self::NotFromCaller { .. }
            | Self::OtherSubject { .. }
            | Self::SubjectNotWritten
            | Self::ReservedMember
            | Self::DuplicateMember { .. }
            | Self::ShapeMismatch { .. }
            | Self::MissingScopeId { .. }
            | Self::InvalidScopeId { .. }
            | Self::NotNormalized { .. }
            | Self::NotNamed { .. }
            | Self::PrivateMember { .. }
            | Self::SensitiveInTheClear { .. }
            | Self::LimitExceeded { .. }
            | Self::CatchAll { .. } => ErrorKind::InvalidInput,
            Self::Tampered { .. } | Self::Unsealed { .. } | Self::OtherOwner { .. } => ErrorKind::Tampered,
            Self::Unsupported { .. }
            | Self::StillSealed { .. }
            | Self::UnknownType { .. }
            | Self::UndeclaredVersion { .. }
            | Self::NewerVersion { .. }
            | Self::UnknownVersion { .. }
            | Self::Decode { .. }
            | Self::UnexpectedType { .. }
            | Self::UnexpectedVersion { .. } => ErrorKind::Schemas,
            Self::InMetadata(fault) => fault.kind(),
            Self::MissingKey { .. } => ErrorKind::MissingKey,
            Self::Upcast { .. } => ErrorKind::Application,
        }
    }
}
