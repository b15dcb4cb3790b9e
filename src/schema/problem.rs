//! The problems that schemas can have, and their texts.

use crate::event::EventType;
use crate::json::pointer::JsonPointer;
use std::fmt;

/// The event type of what is declared for all events.
pub(crate) const ALL_EVENTS: &str = "*";

/// Everything that is wrong with a set of schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaErrors {
    /// Never empty.
    pub errors: Vec<SchemaError>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// The event type; `*` if the problem is in what [`SchemasBuilder`](crate::schema::SchemasBuilder) declares for the
    /// metadata of all events. It is said once then, not for every type.
    pub event_type: EventType,
    /// The version; `None` if the problem concerns the type as a whole, or all events.
    pub version: Option<u32>,
    /// What is wrong.
    pub problem: SchemaProblem,
}

/// What can be wrong with a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SchemaProblem {
    #[error(
        "the owner of {pointer:?} is named by {path}, and it can't be seen where serde writes that field: it is \
         skipped, a function writes it, or it lies in a type that is plain or declares no fields; name a field that is \
         written as it is"
    )]
    OwnerUnseen { pointer: String, path: String },
    #[error("{0} says that it holds Sensitive values, and not where: implement EventPart::layout for it, or derive it")]
    SaysNotWhere(&'static str),
    #[error("{0:?} is Sensitive, and nothing says whose it is: name an owner, such as #[event(owner = aggregate)]")]
    NoOwner(String),
    #[error(
        "{0} is written as a list, and a list has no members that could be protected: make it a struct, or a \
         transparent newtype over one Sensitive"
    )]
    ListAtRoot(&'static str),
    #[error("{0:?} belongs to key(…), the name of a member, and is in no map: name another owner, or make it a map")]
    KeyOfNoMap(String),
    #[error("{0:?} holds Sensitive values {1}, where no pointer can name them: make it a Sensitive itself")]
    HasNoPlace(String, &'static str),
    #[error(
        "{0} holds Sensitive values and itself, so they stand at any depth, and no pointer names them all: make the \
         field that holds it again a Sensitive"
    )]
    HoldsItself(&'static str),
    #[error(
        "the variants {} and {} of {enumeration} differ in owner, stand-in or protection at {pointer:?}, and a pointer \
         can't tell variants apart: make it Sensitive in both, for one owner and with one stand-in, or give them \
         members of different names",
        variants.0, variants.1
    )]
    VariantsDisagree { enumeration: &'static str, pointer: String, variants: (&'static str, &'static str) },
    #[error(
        "the variant {variant} of {enumeration} is written as a text, where other variants are objects with Sensitive \
         values: write it `{variant} {{}}`, or give the enum a #[serde(tag = \"…\")]"
    )]
    VariantIsText { enumeration: &'static str, variant: &'static str },
    #[error("two fields are written to {0:?} and {1:?}, which overlap, and only one of them is Sensitive: rename one")]
    FieldsOverlap(String, String),
    #[error("both {0} and {1} declare this version: give one of them another type or version")]
    ClaimedTwice(&'static str, &'static str),
    #[error("{0} and event(…) declare this version in different ways: {1}; leave it out of event(…), or say the same")]
    DeclaredOtherwise(&'static str, String),
    #[error("its name {0}")]
    Name(&'static str),
    #[error("it is declared twice: put everything into one event(…)")]
    TypeTwice,
    #[error("it has no version: begin with .version(1)")]
    NoVersion,
    #[error("something is declared before the first version: begin with .version(1)")]
    BeforeVersion,
    #[error("versions are 1 to 2147483647")]
    VersionNumber,
    #[error("the version is declared twice")]
    VersionTwice,
    #[error("the version is missing between others: declare it with .version({0})")]
    VersionMissing(u32),
    #[error("there is no step to the next version: add .change({0}, …) or .upcast({0}, …)")]
    StepMissing(u32),
    #[error("there are two steps from this version: keep one")]
    StepTwice,
    #[error("a step starts from this version, which is not declared")]
    StepFromUnknown,
    #[error("its step leads to {0} version {1}, which is not declared")]
    UnknownTarget(EventType, u32),
    #[error("its steps lead back to itself")]
    Cycle,
    #[error(
        "the type is protected, but this version says nothing: add .protect(…), .protect_same_as(n) or \
         .unprotected(reason)"
    )]
    Undeclared,
    #[error(
        "metadata of the type is protected, but this version says nothing: add .protect_metadata(…), \
         .protect_same_as(n) or .metadata_in_the_clear(reason)"
    )]
    MetadataUndeclared,
    #[error("it is both protected and unprotected")]
    ProtectedAndNot,
    #[error("it protects single fields and the whole payload: choose one")]
    FieldsAndWhole,
    #[error("it protects the whole payload twice, perhaps for two owners: keep one")]
    WholeTwice,
    #[error(".protect(&[], …) names no pointer: name what it protects, or say .unprotected(reason)")]
    NamesNothing,
    #[error("pointer {0:?} can never seal anything: {1}")]
    NeverSeals(String, &'static str),
    #[error(".protect_same_as({0}) names a version that is not declared before it")]
    SameAsUnknown(u32),
    #[error("pointer {0:?} {1}")]
    Pointer(String, &'static str),
    #[error("pointers {0:?} and {1:?} overlap: protect the outer one alone")]
    Overlap(String, String),
    #[error("scope kind {0:?} {1}")]
    ScopeKind(String, &'static str),
    #[error(
        "its scope kind {kind:?} is too similar to {other:?} of {}: a shred of one does not reach the other; write \
         them the same, or build the schemas with distinct_kinds({kind:?}, {other:?})", At(event_type, *event_version)
    )]
    SimilarKinds { kind: String, other: String, event_type: EventType, event_version: Option<u32> },
    #[error(
        "its {kind:?} ids are normalized by {how}, and in {} by {other}: one of them would name two key scopes; say \
         the same .normalize(…) in every declaration of the kind", At(event_type, *event_version)
    )]
    NormalizedOtherwise { kind: String, how: String, other: String, event_type: EventType, event_version: Option<u32> },
    #[error("it normalizes the ids of its aggregate under no kind: add .scope_kind(…)")]
    NormalizesNoKind,
    #[error("scope pointer {0:?} {1}")]
    ScopePointer(String, String),
    #[error(
        "pointer {0:?} means the members of an object by a name in braces, which changes can't: move what is around \
         it, or write a typed step with Sensitive fields"
    )]
    Members(String),
    #[error("in the metadata: {0}")]
    InMetadata(Box<SchemaProblem>),
    #[error(
        "the id at {id} names an owner, and {over:?} would seal it: what names an owner in the metadata, or an owner \
         of metadata, stays in the clear"
    )]
    OwnerProtected { id: String, over: String },
    #[error("the name of a function that names an owner, or computes a stand-in, {0}")]
    FunctionName(&'static str),
    #[error("the caller names a {0} at {1:?} and at {2:?} in the metadata: keep one place for the kind")]
    CallerAtTwo(String, String, String),
    #[error(
        "the caller names a {0} and a {1} at {2:?} in the metadata, so one would be taken for the other: give one of \
         them another place with caller_at"
    )]
    CallersAtOne(String, String, String),
    #[error("{0:?} is not protected in this version, so it has no stand-in and no padding")]
    NotProtected(String),
    #[error("redact_as or redact_with name two different stand-ins for {0:?}: keep one")]
    StandInTwice(String),
    #[error(
        "redact_with would compute a stand-in for the whole payload, of which nothing is in the clear: use redact_as, \
         or protect single fields"
    )]
    ComputedWhole,
    #[error("pad_to names two different paddings for {0:?}: keep one")]
    PadTwice(String),
    #[error("{0} is not a padding: use a multiple of 32 up to 65,536")]
    Pad(usize),
    #[error("pointer {0:?} ends in '*': single elements of an array can't be moved, removed or made up")]
    Element(String),
    #[error("{0:?} and {1:?} lie in different arrays: the '*'s of both must stand for the same elements")]
    OtherElements(String, String),
    #[error("{0:?} and {1:?} overlap: nothing can be moved or copied into itself")]
    IntoItself(String, String),
    #[error(
        "{0:?} would get to {1:?}, into {2:?}, which is protected as one value: it would be lost when that is erased"
    )]
    IntoProtected(String, String, String),
    #[error(
        "the function for {0:?} would see what is protected at {1:?} inside of it, erased or not: map that alone, or \
         use upcast_with"
    )]
    MapsAround(String, String),
    #[error(
        "what is protected at {from} gets to {to} of {event_type} version {event_version}, which does not protect it \
         there: protect it, or remove it in the step"
    )]
    LeavesProtection { from: JsonPointer, to: JsonPointer, event_type: EventType, event_version: u32 },
    #[error(
        "the step takes {id} away, which names the owner of {field} in {event_type} version {event_version}: keep it, \
         or point the subject at where it goes"
    )]
    OwnerLost { id: String, field: String, event_type: EventType, event_version: u32 },
    #[error("the step renames the type twice")]
    RenamedTwice,
    #[error("there are two changes of the metadata from this version")]
    MetadataTwice,
    #[error("no step that keeps the event goes on from this version, so its metadata can't be changed")]
    MetadataWithoutStep,
    #[error(".legacy_version({0}) names a version that is not declared")]
    LegacyUnknown(u32),
    #[error(".legacy_version(…) is said twice")]
    LegacyTwice,
    #[error("its chain has {0} steps, and {1} are allowed: merge some, or raise max_steps")]
    ChainTooLong(usize, usize),
    #[error("accept_plaintext names it, but it is not registered or protects nothing")]
    AcceptsNothing,
    #[error("{0} decodes it, but it is not registered: add event(…) for it, or take it out of there")]
    NotRegistered(&'static str),
    #[error("{0} decodes it twice: keep one")]
    DecodedTwice(&'static str),
    #[error(
        "{0} decodes this version, but the current one is {1}: name the type of the current version, which brings \
         those before it with `previous`, or change the schema"
    )]
    NotCurrent(&'static str, u32),
    #[error("{0} decodes it, but readers never see it, because its last step leads elsewhere: decode what it leads to")]
    NeverSeen(&'static str),
    #[error(
        "{0} decodes what it is split into, but a redacted event that was protected whole can't be split, and comes as \
         it is: add a catch-all (`#[event(other)] Other(Box<PersistedEvent>)`)"
    )]
    NeedsCatchAll(&'static str),
    #[error(
        "{0} can't be decoded from {1}, which is what comes once an event that was protected whole is erased, and then \
         no stream with such an event can be decoded: make its payload a transparent newtype over Sensitive, or let \
         .redact_as(\"\", …) say what fits"
    )]
    UndecodableOnceErased(&'static str, String),
}

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the schemas have {} problem{}:", self.errors.len(), if self.errors.len() == 1 { "" } else { "s" })?;
        self.errors.iter().try_for_each(|error| write!(f, "\n- {error}"))
    }
}

impl std::error::Error for SchemaErrors {}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", At(&self.event_type, self.version), self.problem)
    }
}

impl SchemaError {
    pub(crate) fn is_of_all_events(&self) -> bool {
        self.event_type == ALL_EVENTS && self.version.is_none()
    }
}

/// Where something is declared, in a message.
struct At<'a>(&'a EventType, Option<u32>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (event_type, Some(version)) => write!(f, "{event_type} version {version}"),
            (event_type, None) if *event_type == ALL_EVENTS => f.write_str("all events"),
            (event_type, None) => write!(f, "{event_type}"),
        }
    }
}
