//! The one error type of the crate: one enum, and so one file, however long.
//!
//! Every outcome that a caller must treat differently is a variant of its own: a key that was shredded,
//! one that is missing, a seal that was tampered with and a KMS that does not answer must never be
//! mistaken for one another. Messages say what to do next. They name places (pointers, ids, types) and
//! never values: no payload, no key, no wrapped key is ever put into an error (invariant I9).

use crate::error::{DriverError, Failure, describe, driver};
use crate::event::{
    AggregateRef, AggregateVersion, EventType, EventVersion, ExpectedVersion, GlobalPosition, Unreadable,
};
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::kms::KmsFailure;
use crate::schema::SchemaErrors;
use uuid::Uuid;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from somebody else's code: a database driver, a KMS client, an upcaster of the application.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, and what to do about it.
///
/// Match on the variants for detail, and on [`kind`](Error::kind) for what they mean in one word; use
/// [`is_conflict`](Error::is_conflict), [`is_retryable`](Error::is_retryable), [`is_outage`](Error::is_outage) and
/// [`is_shredded`](Error::is_shredded) to decide what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- appending: what the caller passed
    /// `append` was called without events.
    #[error("no events to append: pass at least one")]
    EmptyAppend,
    /// Two events of one batch have the same id, or the store already holds an event with this id.
    #[error("event id {event_id} is used twice: give every event an id of its own, or treat this as a repeated append")]
    DuplicateEventId {
        /// The id.
        event_id: Uuid,
    },
    /// A name or id is empty, holds a NUL character or is too long.
    #[error("{what} {problem}")]
    InvalidText {
        /// Which name or id.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An aggregate version or global position outside the range that exists.
    #[error("{what} {value} does not exist: {hint}")]
    OutOfRange {
        /// What kind of number it is.
        what: &'static str,
        /// The number.
        value: i64,
        /// Which numbers exist.
        hint: &'static str,
    },
    /// The aggregate is not at the expected version. No event was written, and the transaction can go on.
    /// (Keys that were made for the events may have been, which does no harm.)
    #[error("{aggregate} is at version {}, expected {expected}: read it again and decide anew", actual.map_or(0, AggregateVersion::get))]
    VersionConflict {
        /// The aggregate.
        aggregate: AggregateRef,
        /// What the caller expected.
        expected: ExpectedVersion,
        /// The version it is at, `None` if it has no events.
        actual: Option<AggregateVersion>,
    },
    /// An event was passed at a version that the schemas do not let be appended.
    #[error("event {event_id}: {event_type} version {event_version} can't be appended: {hint}")]
    UndeclaredVersion {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// Its version.
        event_version: EventVersion,
        /// What could be done.
        hint: String,
    },
    /// The registry does not know the type of an event that is appended or read.
    #[error(
        "event {event_id}: type {event_type} is not registered: add event({event_type:?}) to the schemas, ask only for \
         the types that are registered (EventFilter::event_types), or build the schemas with allow_unknown_types()",
        event_type = event_type.as_str()
    )]
    UnknownType {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
    },
    /// The payload is not valid JSON, but its type has protected fields.
    #[error(
        "event {event_id}: the payload is not valid JSON at byte {offset} ({problem}): fields can be protected in JSON \
         objects only; protect_whole() takes any bytes"
    )]
    InvalidPayload {
        /// The event.
        event_id: Uuid,
        /// Where the JSON stops being valid, in bytes from the start of the payload.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The payload is not JSON that a step could read, and the schemas were built with
    /// [`deny_unreadable_payloads`](crate::schema::SchemasBuilder::deny_unreadable_payloads).
    #[error(
        "event {event_id}: no step could read the payload at line {line} column {column}: pass JSON without numbers \
         beyond f64, unpaired surrogates and nesting deeper than 127"
    )]
    UnreadablePayload {
        /// The event.
        event_id: Uuid,
        /// Where serde_json gives up.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// The metadata is not JSON, or not such as the store's column can hold. PostgreSQL's JSONB holds no `\u0000`, no
    /// unpaired surrogate, no number of more than 131,072 digits before or 16,383 behind the point, and no document
    /// that is nested deeper than 6,000 levels or longer than 32 MiB.
    #[error("event {event_id}: the metadata {problem}")]
    InvalidMetadata {
        /// The event.
        event_id: Uuid,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// The payload's root has a member that this crate reserves for its header.
    #[error(
        "event {event_id}: the payload's root has a member named \"$seal\", which is reserved: rename it, or look \
         whether the payload is sealed already"
    )]
    ReservedMember {
        /// The event.
        event_id: Uuid,
    },
    /// A member on the path of a protected field occurs twice in one object.
    #[error(
        "event {event_id}: a member at {pointer} occurs twice, so which one is protected is ambiguous: write it once"
    )]
    DuplicateMember {
        /// The event.
        event_id: Uuid,
        /// The member.
        pointer: JsonPointer,
    },
    /// The payload has something else where a protected pointer needs an object or an array.
    #[error(
        "event {event_id}: {pointer} must be {expected} for the protected fields below it: correct the payload or the \
         schema"
    )]
    ShapeMismatch {
        /// The event.
        event_id: Uuid,
        /// The place.
        pointer: JsonPointer,
        /// What the schema needs there.
        expected: &'static str,
    },
    /// A protected field is present, but what names its key scope is not.
    #[error(
        "event {event_id}: {field} is protected by the {kind} named at {pointer}, which is absent or null: set it, or \
         leave the field out, to append the event; for one that is stored, let this version of the schema name another \
         owner, such as the aggregate"
    )]
    MissingScopeId {
        /// The event.
        event_id: Uuid,
        /// The protected field.
        field: JsonPointer,
        /// The kind of scope.
        kind: String,
        /// Where its id should be.
        pointer: String,
    },
    /// What names a key scope is neither a string nor an integer, or holds a character it must not.
    #[error(
        "event {event_id}: the {kind} named at {pointer} {problem}: scope ids are non-empty strings without NUL, or \
         integers"
    )]
    InvalidScopeId {
        /// The event.
        event_id: Uuid,
        /// The kind of scope.
        kind: String,
        /// Where its id is.
        pointer: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A member of the payload, at any depth, has a name that serde_json keeps for itself (`$serde_json::private::…`):
    /// it would read the object around it as something else, such as the JSON in a text, and so hide it from what is
    /// protected. Refused in what is protected as in what is not, at append as when it is decoded. Names that are
    /// protected, or may have been, are shown as `***`.
    #[error(
        "event {event_id}: the name of the member {pointer} is one that serde_json keeps for itself, and would read as \
         something else: give it another name to append it; of a stored event, take the payload's bytes, or move or \
         remove the member with a declarative step"
    )]
    PrivateMember {
        /// The event.
        event_id: Uuid,
        /// The member.
        pointer: JsonPointer,
    },
    /// The event was made of a Rust value in which a [`Sensitive`](crate::Sensitive) stands at a place that the schema
    /// does not protect, so it would be stored in the clear. Nothing was stored.
    #[error(
        "event {event_id}: {pointer} is a Sensitive, but {event_type} version {event_version} does not protect it, so \
         it would be stored in the clear: protect the place in the schema (of a type that is registered), or take the \
         Sensitive away if everybody may read it"
    )]
    SensitiveInTheClear {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// Its version.
        event_version: EventVersion,
        /// The place. If the `Sensitive` is part of a text or the name of a member there, this place would have to be
        /// protected.
        pointer: JsonPointer,
    },
    /// The aggregate's type, which is the kind of its own scope, can be confused with a kind that the schemas declare.
    #[error(
        "aggregate type {aggregate_type:?} owns protected values, and differs from the scope kind {declared:?} of the \
         schemas by case, white space or one letter: a shred of one does not reach the other; write them the same, \
         give the owner a name with Owner::Aggregate.scope_kind(…), or build the schemas with \
         distinct_kinds({aggregate_type:?}, {declared:?})"
    )]
    SimilarKind {
        /// The aggregate's type.
        aggregate_type: String,
        /// The kind that the schemas declare.
        declared: String,
    },
    /// A limit of the sealed format, or a narrower one of this process, is exceeded.
    #[error("event {event_id}: {what} is over the limit of {limit}: make the payload smaller, or several events of it")]
    LimitExceeded {
        /// The event.
        event_id: Uuid,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },

    // ---- keys
    /// The scope's keys were destroyed. This is final unless the scope is reopened.
    #[error(
        "the keys of {scope} were shredded: nothing can be sealed for it; reopen() starts a new generation if that is \
         lawful"
    )]
    Shredded {
        /// The scope.
        scope: KeyScope,
    },
    /// The scope is disabled, which an operator can reverse.
    #[error("the keys of {scope} are disabled: enable() makes them usable again")]
    Disabled {
        /// The scope.
        scope: KeyScope,
    },
    /// The key table has no row for a key that a seal names. This is not an erasure: rows of shredded keys stay.
    #[error(
        "event {event_id}: data key {key_id} is not in the key table: restore the table from a backup, or check that \
         the right database is used"
    )]
    MissingKey {
        /// The event.
        event_id: Uuid,
        /// The key.
        key_id: KeyId,
    },
    /// A wrapped data key does not open under its key-encryption key.
    #[error(
        "data key {key_id} does not open under its key-encryption key {kek_id}: its row was altered or belongs to \
         another namespace, restore it from a backup"
    )]
    WrongKey {
        /// The key.
        key_id: KeyId,
        /// The key-encryption key.
        kek_id: KekId,
    },
    /// The key table names a key-encryption key that it does not hold.
    #[error("key-encryption key {kek_id} is not in the key table: restore the table from a backup")]
    MissingKek {
        /// The key-encryption key.
        kek_id: KekId,
    },
    /// No key-encryption key can wrap new data keys.
    #[error(
        "no active key-encryption key in partition {partition:?}: call keys().prepare() once at startup, and \
         keys().create_kek() for each partition of your own, on a connection that is not in a transaction"
    )]
    NoActiveKek {
        /// The partition.
        partition: String,
    },
    /// The key-encryption key can't be retired.
    #[error("key-encryption key {kek_id} {problem}")]
    KekInUse {
        /// The key-encryption key.
        kek_id: KekId,
        /// Why not, and what to do first.
        problem: String,
    },
    /// The operation does not apply to the scope as it is.
    #[error("{scope} {problem}")]
    ScopeState {
        /// The scope.
        scope: KeyScope,
        /// Why not, and what would be possible.
        problem: &'static str,
    },
    /// The database accepted a change of keys, or events, and did not make all of it. Nothing may be concluded from it:
    /// a shred that ends with this has destroyed nothing for certain.
    #[error(
        "{operation} had no effect: the database accepted the change, and {table} is not as it should be; roll the \
         transaction back, look at the row-level policies, triggers and rules of {table}, and at what this role may \
         change"
    )]
    NoEffect {
        /// What was to be done.
        operation: &'static str,
        /// The table that did not change, without prefix.
        table: &'static str,
    },
    /// The database was migrated for another namespace than the one configured, or than the one of the
    /// database that the store was used on before.
    #[error(
        "the key tables belong to namespace {found}, but {configured} is expected: use the namespace that this \
         database has, or connect to the other database"
    )]
    NamespaceMismatch {
        /// What the process was configured for, or has used before.
        configured: Namespace,
        /// What the database says.
        found: Namespace,
    },
    /// The key tables have not been set up.
    #[error("the key tables are not set up: run their migrations first, with migrate() of the key store")]
    NotMigrated,
    /// A table of events has not been set up.
    #[error(
        "the {of} has no event tables ({table} is missing): call migrate() of the event store on it, or configure the \
         names that its tables have"
    )]
    NoEventTables {
        /// `target` of a rewrite, or `database`.
        of: &'static str,
        /// The table.
        table: String,
    },
    /// An append can't be written in the configured order: a table lacks the unique constraint that it needs. A table
    /// that is partitioned by position can't have one on the version in the stream.
    #[error(
        "the table {table:?}, or that of its heads, lacks the unique constraint on type, id and version of a stream \
         (of the heads: on type and id) that appends in this order need: if all writers take the head row first, as \
         eventsalsa/store does from 0.1 on, configure PostgresTables::heads_first(); otherwise add the constraint"
    )]
    NoUniqueVersion {
        /// The table of events.
        table: String,
        /// What the database said.
        #[source]
        source: BoxError,
    },
    /// A migration would make tables that exist already, without having been made by it.
    #[error(
        "the tables exist already, and were not made by this migration: an existing event store needs only the key \
         tables; otherwise configure other names"
    )]
    TablesExist {
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// A column that this version of the crate needs is not in its table: a migration was forgotten, or the columns
    /// have other names.
    #[error(
        "the tables have not the columns that are needed for {operation}: run the newest migrations, with migrate() of \
         the event store and of the key store, or correct the names that the columns were configured with"
    )]
    OutdatedTables {
        /// For what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// The tables were migrated by a newer version of the crate, in a way that this version must not work with. Other
    /// newer migrations do not stop it.
    #[error(
        "the tables are at migration {found}, which this version of eventseal (it knows {known}) can't work with: \
         deploy the newer code"
    )]
    NewerTables {
        /// The newest migration that was run.
        found: u32,
        /// The newest one that this version has.
        known: u32,
    },
    /// The user that the connection was made with may not do this.
    #[error("the database's user may not do what is needed for {operation}: grant it, or connect as another user")]
    PermissionDenied {
        /// For what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// The position that the sequence gave to an event is in the table already. Repeating it fails again, as often as
    /// there are such positions.
    #[error(
        "the sequence of positions is behind the events of the table: set it beyond the last one, with setval() and \
         max(global_position)"
    )]
    PositionTaken {
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// Events with positions of their own were to be inserted, and it can't be found out which sequence gives out the
    /// next ones.
    #[error(
        "no sequence is found that the positions of {table} come from: let global_position be an identity, or have the \
         default nextval() of a sequence; nothing was inserted"
    )]
    NoSequence {
        /// The table.
        table: String,
    },
    /// A prepared statement is not where it was prepared: a pooler between this process and the database gives each
    /// transaction another session.
    #[error(
        "a prepared statement was lost or met another one while {operation}: a pooler such as PgBouncer gives \
         transactions to different sessions; let it track statements (max_prepared_statements, PgBouncer 1.21), or \
         connect directly"
    )]
    PooledStatements {
        /// During what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },

    // ---- transactions
    /// The operation takes locks that must last until the caller commits.
    #[error(
        "{operation} needs a transaction: pass one begun with begin() or begin_with(), not a bare connection and not a \
         raw BEGIN"
    )]
    NotInTransaction {
        /// The operation.
        operation: &'static str,
    },
    /// The operation commits on its own.
    ///
    /// Asked is the database, not the driver. The driver does not know of a transaction that it began for a future that
    /// was dropped, nor of a raw `BEGIN`.
    #[error(
        "{operation} commits on its own: pass a connection that is not in a transaction; if you began none, a begin() \
         on it was cancelled, so close it and take another one"
    )]
    InTransaction {
        /// The operation.
        operation: &'static str,
    },

    /// A call that commits on its own did, and the database says that nothing was committed.
    #[error(
        "{operation}: the database did not commit it, though it raised no error; nothing was changed, look at the \
         server's log and do it again"
    )]
    NotCommitted {
        /// The operation.
        operation: &'static str,
    },
    /// A commit on this connection could be lost with the power, and the call must last.
    #[error(
        "{operation} must outlast a loss of power, and commits on this connection do not: open it with PRAGMA \
         synchronous = FULL, in sqlx with SqliteConnectOptions::synchronous(SqliteSynchronous::Full)"
    )]
    NotDurable {
        /// The operation.
        operation: &'static str,
    },
    /// Keys were changed in this [`SplitTx`](crate::split::SplitTx), and events can't depend on that before it is
    /// committed.
    #[error("keys in another database were changed in this transaction: commit it, and append in a new one")]
    SplitChange,

    // ---- KMS
    /// The KMS did not answer. Nothing is known about the key: this is an outage, not an erasure.
    #[error("the KMS is unavailable ({}): retry when it answers again", failure.as_str())]
    KmsUnavailable {
        /// Why.
        failure: KmsFailure,
        /// What its client said.
        #[source]
        source: BoxError,
    },
    /// The KMS refused.
    #[error("the KMS refused key-encryption key {kek_id} ({}): {problem}", failure.as_str())]
    KmsRefused {
        /// The key-encryption key.
        kek_id: KekId,
        /// Why.
        failure: KmsFailure,
        /// What to do.
        problem: String,
    },
    /// A keyring can't be used.
    #[error("keyring: {problem}")]
    Keyring {
        /// Why, and what to do.
        problem: String,
    },
    /// A cipher or hash refused its input, which no input of this crate's should make it do.
    #[error("a cryptographic primitive refused its input: nothing was sealed or opened; please report this")]
    Cryptography,
    /// The operating system gave no random bytes.
    #[error("the operating system's random generator failed: nothing was sealed")]
    Random,

    // ---- reading
    /// A seal, or a place it covers, is not what was written.
    #[error(
        "event {event_id}: the seal does not hold ({problem}): the stored event was altered, moved or belongs to \
         another namespace; restore it from a backup, and find out who could write it"
    )]
    Tampered {
        /// The event.
        event_id: Uuid,
        /// What does not hold.
        problem: &'static str,
    },
    /// A protected place holds a value that no seal covers.
    #[error(
        "event {event_id}: {pointer} is protected, but its value is not covered by a seal: if it was stored before the \
         store was wrapped, build the schemas with accept_plaintext({event_type:?})"
    )]
    Unsealed {
        /// The event.
        event_id: Uuid,
        /// Its type as stored.
        event_type: EventType,
        /// The place.
        pointer: JsonPointer,
    },
    /// A value is sealed under the key of one subject, and the payload names another one as its owner. What names
    /// owners is not authenticated: either somebody altered it, or the schema says something else of this version than
    /// it did when the event was sealed. Readers go by the seal; maintenance does not give the value to somebody else.
    #[error(
        "event {event_id}: the value at {pointer} is sealed for another owner than the payload names: find out who \
         altered what names it and restore that, or let the schema name the owner of this version as it did when the \
         event was sealed"
    )]
    OtherOwner {
        /// The event.
        event_id: Uuid,
        /// The place of the value.
        pointer: JsonPointer,
    },
    /// The seal uses a format, suite or mode that this version does not know.
    #[error(
        "event {event_id}: {what} {value} of the seal is not supported by this version of eventseal: upgrade the reader"
    )]
    Unsupported {
        /// The event.
        event_id: Uuid,
        /// Format, suite, part or mode.
        what: &'static str,
        /// Its number.
        value: u8,
    },
    /// A sealed payload would have been handed out as if it were plaintext: its type is not registered, or the event
    /// was read past the [`SealedStore`](crate::SealedStore). Its values are ciphertext, live or shredded.
    #[error(
        "event {event_id}: the payload of {event_type} is sealed, and nothing has opened it: read it through a \
         SealedStore or Sealer with schemas that register {event_type}; a service that carries sealed events on builds \
         its schemas with pass_through_sealed()"
    )]
    StillSealed {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
    },
    /// The stored version is newer than the newest that the process knows.
    #[error(
        "event {event_id}: {event_type} version {event_version} is newer than version {known}, the newest this process \
         knows: deploy the newer code, or build the schemas with pass_through_newer()"
    )]
    NewerVersion {
        /// The event.
        event_id: Uuid,
        /// Its type as stored.
        event_type: EventType,
        /// Its version as stored.
        event_version: EventVersion,
        /// The newest version registered.
        known: EventVersion,
    },
    /// The stored version is older than any that is registered, or there is none.
    #[error("event {event_id}: {event_type} {}", describe::gap(*event_version, *oldest))]
    UnknownVersion {
        /// The event.
        event_id: Uuid,
        /// Its type as stored.
        event_type: EventType,
        /// Its version as stored; 0 stands for none.
        event_version: EventVersion,
        /// The oldest version registered.
        oldest: EventVersion,
    },
    /// An upcaster failed.
    #[error("event {event_id}: the step from {event_type} version {from} ({step}) failed: {problem}")]
    Upcast {
        /// The event.
        event_id: Uuid,
        /// The type the step starts from.
        event_type: EventType,
        /// The version the step starts from.
        from: EventVersion,
        /// Which step, such as `typed, to OrderPlaced version 2`.
        step: String,
        /// What happened, without payload values.
        problem: String,
        /// What the step itself returned, if it did, and if it was no error of serde_json (which quotes values).
        #[source]
        source: Option<StepError>,
    },
    /// A payload does not fit the Rust type it is decoded into.
    #[error("event {event_id}: {event_type} version {event_version} does not decode into {target}: {problem}")]
    Decode {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// The version of the payload.
        event_version: EventVersion,
        /// The Rust type.
        target: &'static str,
        /// What does not fit, without payload values.
        problem: String,
    },
    /// An event is of a type that a [`TypedEvent`](crate::TypedEvent) does not decode.
    #[error(
        "event {event_id}: {target} decodes no {event_type}: give it an arm for that type, or a catch-all (`_ => \
         Other`), or read other types only"
    )]
    UnexpectedType {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// The Rust type.
        target: &'static str,
    },
    /// An event is of another version than the Rust type for its payload.
    #[error(
        "event {event_id}: {event_type} version {event_version} can't be decoded into {target}, which is of version \
         {expected}: read it through schemas that lead to that version, or deploy the code that knows {event_version} \
         if that is newer"
    )]
    UnexpectedVersion {
        /// The event.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// The version of its payload.
        event_version: EventVersion,
        /// The version that the Rust type declares.
        expected: EventVersion,
        /// The Rust type.
        target: &'static str,
    },
    /// The catch-all of an enum made by [`events!`](crate::events) can't be appended.
    #[error(
        "event {event_id}: {target} has no arm for {event_type} and holds it as it was read, so it is stored already: \
         append a new event of a type that has an arm"
    )]
    CatchAll {
        /// The event that was read.
        event_id: Uuid,
        /// Its type.
        event_type: EventType,
        /// The Rust type.
        target: &'static str,
    },
    /// A Rust value could not be written as JSON.
    #[error("{target} can't be written as JSON: {problem}")]
    Encode {
        /// The Rust type.
        target: &'static str,
        /// Why, without values.
        problem: String,
    },

    /// An event that can't be read is in the way of maintenance. The source says why, and what to do.
    #[error(transparent)]
    Unreadable(Box<Unreadable>),
    /// The store that is to be written to holds something else.
    #[error(
        "at position {position}, the target holds another event than the source, or the source none: rewrite into an \
         empty store, or go on with the one that an earlier call began"
    )]
    ForeignTarget {
        /// The last position of the target.
        position: GlobalPosition,
    },
    /// A store can't be rewritten into itself.
    #[error("source and target are the same table of events: rewrite into other tables, or into another database")]
    TargetIsSource,
    /// The target of a rewrite is where nobody can write while the source is locked.
    #[error(
        "source and target are in the same SQLite file, in which only one connection can write (or one connection has \
         the other's file attached, or both are in memory, where that can't be told): rewrite into another file"
    )]
    TargetInSameFile,
    /// The target of a rewrite has more or fewer events than the source.
    #[error(
        "up to position {up_to}, the target holds {copied} events and the source {events}: somebody else wrote to the \
         target; rewrite into an empty store"
    )]
    IncompleteTarget {
        /// Up to where events were counted.
        up_to: GlobalPosition,
        /// How many the source has.
        events: u64,
        /// How many the target has.
        copied: u64,
    },
    /// What maintenance has just written does not open to what it was made of. Nothing of the batch was committed.
    #[error(
        "event {event_id}: what was written does not open to what it was made of ({problem}): nothing of the batch was \
         committed; run the store through the conformance suite"
    )]
    NotVerified {
        /// The event.
        event_id: Uuid,
        /// What differs.
        problem: &'static str,
    },

    // ---- set-up and everything below
    /// The schemas contradict themselves. All problems are listed.
    #[error(transparent)]
    Schemas(#[from] SchemaErrors),
    /// A consumer failed.
    #[error("consumer {consumer} failed at {aggregate} version {version}: roll the transaction back")]
    Consumer {
        /// Its name.
        consumer: String,
        /// The event's aggregate.
        aggregate: AggregateRef,
        /// The event's version.
        version: AggregateVersion,
        /// What it returned.
        #[source]
        source: StepError,
    },
    /// Another transaction got in the way: roll back and run the transaction again.
    #[error("the transaction collided with another one: roll it back and run it again")]
    Collision {
        /// What the database said.
        #[source]
        source: Option<DriverError>,
    },
    /// The database failed. [`is_outage`](Error::is_outage) says whether it is away; nothing was committed then.
    #[error("the database failed while {operation}{}", driver::remedy(source))]
    Database {
        /// During what.
        operation: &'static str,
        /// What its driver said.
        #[source]
        source: DriverError,
    },
    /// The connection was lost while a transaction of this crate was being committed. Whether it is committed is not
    /// known.
    #[error(
        "the connection was lost while {operation} was being committed, so it may be done or not: look, before you do \
         it again"
    )]
    OutcomeUnknown {
        /// What was being committed.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// The wrapped store does not keep the contract of [`EventStore`](crate::EventStore).
    #[error("the wrapped store broke its contract: {problem}; run it through the conformance suite")]
    Contract {
        /// What it did.
        problem: &'static str,
    },
    /// The row of a stored event holds what no event store of this crate writes there.
    #[error(
        "the event at position {position} is invalid: its {what} {problem}; correct the row, or restore it from a \
         backup"
    )]
    InvalidEvent {
        /// The position.
        position: GlobalPosition,
        /// Which column.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A row of the store or the key table holds what this crate never writes there.
    #[error("{what} in the database is invalid: it {problem}; restore the row from a backup")]
    InvalidRow {
        /// Which column of which table.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

/// An error that the application's own code returned: a step, or a consumer.
///
/// It is also the [`source`](std::error::Error::source) of [`Error::Upcast`] and [`Error::Consumer`]. Its `Debug` shows
/// nothing, because what the application's error shows may hold payload values; who prints it on purpose derefs it.
pub struct StepError(pub(crate) BoxError);

// What thiserror needs to make the application's own error the source, so that it can be downcast.
impl std::ops::Deref for StepError {
    type Target = dyn std::error::Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for StepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StepError(…)")
    }
}

impl Error {
    /// The aggregate was not at the expected version, or an event with this id exists already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::VersionConflict { .. } | Self::DuplicateEventId { .. })
    }

    /// The same call may succeed later as it is: in a new transaction, or when database or KMS answer again.
    ///
    /// Nothing of the transaction is committed then. [`OutcomeUnknown`](Self::OutcomeUnknown) is an outage and not
    /// retryable: look first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Collision { .. } | Self::KmsUnavailable { .. } => true,
            Self::Database { source, .. } => source.is_outage(),
            Self::Unreadable(unreadable) => unreadable.error.is_retryable(),
            Self::Consumer { source, .. } => {
                matches!(driver::meaning(&*source.0), Failure::Collision | Failure::Outage)
            }
            _ => false,
        }
    }

    /// The database or the KMS is away, is starting or stopping, takes no connection or no write, or has no room left.
    /// It says nothing about what was asked: an outage is never an erasure.
    ///
    /// PostgreSQL: errors of the connection, SQLSTATE class 08, 25006 (a read-only server, as after a fail-over), 25P03
    /// and 57P05 (it ended an idle session), 53100, 53200, 53300, 57P01 to 57P03, 58030; a pool's time-out. SQLite:
    /// `IOERR`, `CANTOPEN`, `FULL`. A lock that others hold is a [`Collision`](Self::Collision) instead.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::KmsUnavailable { .. } | Self::OutcomeUnknown { .. } => true,
            Self::Database { source, .. } => source.is_outage(),
            Self::Unreadable(unreadable) => unreadable.error.is_outage(),
            Self::Consumer { source, .. } => driver::meaning(&*source.0) == Failure::Outage,
            _ => false,
        }
    }

    /// An append met a shredded scope.
    #[must_use]
    pub fn is_shredded(&self) -> bool {
        matches!(self, Self::Shredded { .. })
    }

    /// What is stored is not what was written, or was never sealed.
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        matches!(self, Self::Tampered { .. } | Self::Unsealed { .. })
    }
}
