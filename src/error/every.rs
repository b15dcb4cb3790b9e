//! One error of each variant. `every.txt` lists their kinds and texts, so that a review sees every change of them.
//!
//! `ERRORS=record cargo test … --lib error` writes the list anew.

use super::kms::KmsFailure;
use super::{BoxError, DriverError, Error, StepError};
use crate::error::{
    BlindIndexFault, EventFault, InputFault, KeyFault, KmsFault, MaintenanceFault, SetUpFault, StorageFault,
    TransactionFault, ValueFault,
};
use crate::event::{AggregateVersion, EventType, EventVersion, ExpectedVersion, GlobalPosition, Unreadable, aggregate};
use crate::json::pointer::JsonPointer;
use crate::keys::hold::Hold;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::schema::{SchemaError, SchemaErrors, SchemaProblem};
use crate::values::ValueContext;
use std::collections::BTreeSet;
use std::error::Error as _;
use time::OffsetDateTime;
use uuid::Uuid;

/// Sources hold this text. No text of this crate may repeat it.
const SECRET: &str = "SECRET";

/// The outer variants that hold an inner type, and where that is declared.
const INNER: &[(&str, &str)] = &[
    ("Event", include_str!("event.rs")),
    ("Input", include_str!("input.rs")),
    ("Keys", include_str!("keys.rs")),
    ("Kms", include_str!("kms.rs")),
    ("SetUp", include_str!("set_up.rs")),
    ("Transaction", include_str!("transaction.rs")),
    ("Storage", include_str!("storage.rs")),
    ("Maintenance", include_str!("maintenance.rs")),
    ("Value", include_str!("value.rs")),
    ("BlindIndex", include_str!("blind_index.rs")),
];

/// An error of the application's own, which shows its text.
#[derive(Debug)]
struct Foreign(#[allow(dead_code, reason = "shown by Debug")] &'static str);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it failed")
    }
}

impl std::error::Error for Foreign {}

fn event_id() -> Uuid {
    Uuid::from_u128(7)
}

fn event_type() -> EventType {
    EventType::from("OrderPlaced")
}

fn pointer() -> JsonPointer {
    JsonPointer::parse("/customer/name").unwrap()
}

fn scope() -> KeyScope {
    KeyScope::new("Customer", "42")
}

fn kek_id() -> KekId {
    KekId(Uuid::from_u128(9))
}

fn key_id() -> KeyId {
    KeyId(Uuid::from_u128(8))
}

fn version(number: u32) -> EventVersion {
    EventVersion::new(number)
}

fn said() -> DriverError {
    DriverError::from(BoxError::from(Foreign(SECRET)))
}

fn step_error() -> StepError {
    StepError::new(Foreign(SECRET).into())
}

/// Errors about one value outside of events.
fn of_values() -> Vec<Error> {
    let faults = [
        ValueFault::InvalidContext { count: 0, limit: 16 },
        ValueFault::SimilarKind { kind: "customer".into(), declared: "Customer".into() },
        ValueFault::InvalidPadding { multiple: 7 },
        ValueFault::LimitExceeded { what: "the size of a value in bytes", limit: 500 },
        ValueFault::Tampered { problem: "the header is not authentic" },
        ValueFault::OtherOwner,
        ValueFault::Unsupported { what: "suite", value: 9 },
        ValueFault::MissingKey { key_id: key_id() },
    ];
    let of = |fault| Error::Value { context: ValueContext::from(["customers", "email", "42"]), fault };
    faults.into_iter().map(of).collect()
}

/// Errors about blind indexes.
fn of_blind_indexes() -> Vec<Error> {
    let faults = [
        BlindIndexFault::Taken,
        BlindIndexFault::InvalidValue { problem: "is not an e-mail address" },
        BlindIndexFault::InvalidBits { bits: 64, least: 96 },
        BlindIndexFault::SimilarKind { kind: "customer".into(), declared: "Customer".into() },
        BlindIndexFault::RotationUnfinished { scope: scope() },
    ];
    faults.into_iter().map(|fault| Error::BlindIndex { index: "customer-email".into(), fault }).collect()
}

/// Errors about one event.
#[expect(clippy::too_many_lines, reason = "a list")]
fn of_events() -> Vec<Error> {
    let (event_id, event_type, event_version) = (event_id(), event_type(), version(2));
    let kind = || "Customer".to_owned();
    vec![
        Error::Event { event_id, fault: EventFault::InvalidPayload { offset: 3, problem: "a value is missing" } },
        Error::Event { event_id, fault: EventFault::UnreadablePayload { line: 1, column: 5 } },
        Error::Event { event_id, fault: EventFault::InvalidMetadata { problem: "is not JSON: correct it" } },
        Error::Event {
            event_id,
            fault: EventFault::NotFromCaller { event_type: event_type.clone(), event_version, kind: kind() },
        },
        Error::Event { event_id, fault: EventFault::OtherSubject { kind: kind(), pointer: "/subject".into() } },
        Error::Event { event_id, fault: EventFault::SubjectNotWritten },
        Error::Event { event_id, fault: EventFault::ReservedMember },
        Error::Event { event_id, fault: EventFault::ReservedMember.in_metadata() },
        Error::Event { event_id, fault: EventFault::DuplicateMember { pointer: pointer() } },
        Error::Event { event_id, fault: EventFault::ShapeMismatch { pointer: pointer(), expected: "an object" } },
        Error::Event {
            event_id,
            fault: EventFault::MissingScopeId { field: pointer(), kind: kind(), pointer: "/customer/id".into() },
        },
        Error::Event {
            event_id,
            fault: EventFault::InvalidScopeId { kind: kind(), pointer: "/customer/id".into(), problem: "is a list" },
        },
        Error::Event {
            event_id,
            fault: EventFault::NotNamed {
                field: pointer(),
                kind: kind(),
                by: "buyer-v1".into(),
                problem: "it names nobody",
            },
        },
        Error::Event {
            event_id,
            fault: EventFault::NotNormalized {
                kind: kind(),
                by: "function digits".into(),
                problem: "the result is empty",
            },
        },
        Error::Event { event_id, fault: EventFault::PrivateMember { pointer: pointer() } },
        Error::Event {
            event_id,
            fault: EventFault::SensitiveInTheClear {
                event_type: event_type.clone(),
                event_version,
                pointer: pointer(),
            },
        },
        Error::Event { event_id, fault: EventFault::LimitExceeded { what: "the payload's nesting", limit: 500 } },
        Error::Event { event_id, fault: EventFault::CatchAll { event_type: event_type.clone(), target: "OrderEvent" } },
        Error::Event { event_id, fault: EventFault::Tampered { problem: "a token is missing" } },
        Error::Event { event_id, fault: EventFault::Unsealed { event_type: event_type.clone(), pointer: pointer() } },
        Error::Event { event_id, fault: EventFault::OtherOwner { pointer: pointer() } },
        Error::Event { event_id, fault: EventFault::Unsupported { what: "suite", value: 9 } },
        Error::Event { event_id, fault: EventFault::StillSealed { event_type: event_type.clone() } },
        Error::Event { event_id, fault: EventFault::MissingKey { key_id: key_id() } },
        Error::Event {
            event_id,
            fault: EventFault::UndeclaredVersion {
                event_type: event_type.clone(),
                event_version,
                hint: "declare it".into(),
            },
        },
        Error::Event { event_id, fault: EventFault::UnknownType { event_type: event_type.clone() } },
        Error::Event {
            event_id,
            fault: EventFault::NewerVersion { event_type: event_type.clone(), event_version, known: version(1) },
        },
        Error::Event {
            event_id,
            fault: EventFault::UnknownVersion { event_type: event_type.clone(), event_version, oldest: version(5) },
        },
        Error::Event {
            event_id,
            fault: EventFault::Upcast {
                event_type: event_type.clone(),
                from: event_version,
                step: "typed, to OrderPlaced version 3".into(),
                problem: "it returned an error".into(),
                source: Some(step_error()),
            },
        },
        Error::Event {
            event_id,
            fault: EventFault::Decode {
                event_type: event_type.clone(),
                event_version,
                target: "Order",
                problem: "missing field `id`".into(),
            },
        },
        Error::Event {
            event_id,
            fault: EventFault::UnexpectedType { event_type: event_type.clone(), target: "OrderEvent" },
        },
        Error::Event {
            event_id,
            fault: EventFault::UnexpectedVersion { event_type, event_version, expected: version(3), target: "Order" },
        },
    ]
}

/// Errors about what was passed, and about the state of its aggregate or its scope.
fn of_callers() -> Vec<Error> {
    vec![
        Error::VersionConflict {
            aggregate: aggregate("Order", "1"),
            expected: ExpectedVersion::NoStream,
            actual: Some(AggregateVersion::FIRST),
        },
        Error::DuplicateEventId { event_id: event_id() },
        Error::Input(InputFault::EmptyAppend),
        Error::Input(InputFault::InvalidText { what: "the event type", problem: "is empty" }),
        Error::Input(InputFault::OutOfRange { what: "global position", value: -1, hint: "positions begin with 1" }),
        Error::Input(InputFault::Time { what: "the end of the hold", at: OffsetDateTime::UNIX_EPOCH }),
        Error::Input(InputFault::SimilarKind { aggregate_type: "customer".into(), declared: "Customer".into() }),
        Error::Input(InputFault::Encode { target: "Order", problem: "a key is no text".into() }),
        Error::Shredded { scope: scope() },
        Error::Disabled { scope: scope() },
        Error::Keys(KeyFault::ScopeState { scope: scope(), problem: "is not shredded: nothing is to be reopened" }),
        Error::Keys(KeyFault::Held {
            scope: scope(),
            holds: vec![Hold {
                id: event_id(),
                scope: scope(),
                reason: "a court order".into(),
                actor: None,
                since: OffsetDateTime::UNIX_EPOCH,
                until: None,
            }],
        }),
        Error::Keys(KeyFault::Consumer { consumer: "overview".into(), scope: scope(), source: step_error() }),
        Error::Schemas(SchemaErrors {
            errors: vec![SchemaError { event_type: event_type(), version: None, problem: SchemaProblem::NoVersion }],
        }),
        Error::Consumer {
            consumer: "projection".into(),
            aggregate: aggregate("Order", "1"),
            version: AggregateVersion::FIRST,
            source: step_error(),
        },
    ]
}

/// Errors of keys and of the KMS.
fn of_keys() -> Vec<Error> {
    let failure = KmsFailure::TimedOut;
    vec![
        Error::Keys(KeyFault::WrongKey { key_id: key_id(), kek_id: kek_id() }),
        Error::Keys(KeyFault::LogAltered { scope: scope(), entry: 2, problem: "is not authentic" }),
        Error::Keys(KeyFault::ChainAltered { seq: 7, problem: "does not follow from the row before" }),
        Error::Keys(KeyFault::ShredLogBehind {
            copy: "erased.jsonl".to_owned(),
            problem: "the copy ends at 7, the log at 5".to_owned(),
        }),
        Error::Keys(KeyFault::LogCopy {
            copy: "erased.jsonl".to_owned(),
            line: Some(3),
            problem: "is not JSON".to_owned(),
            source: Some(step_error()),
        }),
        Error::Keys(KeyFault::NotCopied { copy: "erased.jsonl".to_owned(), source: step_error() }),
        Error::Keys(KeyFault::CopiesDiffer { first: "a.jsonl".to_owned(), second: "b.jsonl".to_owned(), seq: 7 }),
        Error::Keys(KeyFault::MissingKek { kek_id: kek_id() }),
        Error::Keys(KeyFault::NoActiveKek { partition: "eu".into() }),
        Error::Keys(KeyFault::KekInUse { kek_id: kek_id(), problem: "is active: rotate first".into() }),
        Error::Kms(KmsFault::Unavailable { failure, source: BoxError::from(Foreign(SECRET)).into() }),
        Error::Kms(KmsFault::Refused {
            kek_id: kek_id(),
            failure: KmsFailure::AccessDenied,
            problem: "grant it".into(),
        }),
        Error::Kms(KmsFault::Keyring { problem: "entry 2 has no key".into() }),
        Error::Keys(KeyFault::Cryptography),
        Error::Keys(KeyFault::Random),
    ]
}

/// Errors of the database, its tables and its transactions.
fn of_databases() -> Vec<Error> {
    let (operation, position) = ("shredding", GlobalPosition::START);
    let away = || DriverError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let namespace = |name: &str| Namespace::new(name).unwrap();
    vec![
        Error::Collision { source: Some(said()) },
        Error::Database { operation, source: said() },
        Error::Database { operation, source: away() },
        Error::Transaction(TransactionFault::OutcomeUnknown { operation, source: away() }),
        Error::Transaction(TransactionFault::NotInTransaction { operation }),
        Error::Transaction(TransactionFault::InTransaction { operation }),
        Error::Transaction(TransactionFault::NotCommitted { operation }),
        Error::Transaction(TransactionFault::NotDurable { operation }),
        Error::Transaction(TransactionFault::SplitChange),
        Error::SetUp(SetUpFault::NotMigrated),
        Error::SetUp(SetUpFault::NamespaceMismatch { configured: namespace("shop"), found: namespace("test") }),
        Error::SetUp(SetUpFault::NoEventTables { of: "database", table: "events".into() }),
        Error::SetUp(SetUpFault::NoSnapshotTable { table: "snapshots".into() }),
        Error::SetUp(SetUpFault::NoBlindIndex),
        Error::SetUp(SetUpFault::TablesExist { source: said() }),
        Error::SetUp(SetUpFault::OutdatedTables { operation, source: said() }),
        Error::SetUp(SetUpFault::NewerTables { found: 9, known: 8 }),
        Error::SetUp(SetUpFault::PermissionDenied { operation, source: said() }),
        Error::SetUp(SetUpFault::NoUniqueVersion { table: "events".into(), source: said() }),
        Error::SetUp(SetUpFault::PositionTaken { source: said() }),
        Error::SetUp(SetUpFault::NoSequence { table: "events".into() }),
        Error::SetUp(SetUpFault::PooledStatements { operation, source: said() }),
        Error::Storage(StorageFault::NoEffect { operation, table: "data_keys" }),
        Error::Storage(StorageFault::InvalidRow { what: "the state of a key scope", problem: "is unknown" }),
        Error::Storage(StorageFault::InvalidEvent { position, what: "event_version", problem: "is negative" }),
        Error::Storage(StorageFault::Contract { problem: "it returned no versions" }),
    ]
}

/// Errors of maintenance.
fn of_maintenance() -> Vec<Error> {
    let position = GlobalPosition::START;
    vec![
        Error::Maintenance(MaintenanceFault::Unreadable(Box::new(Unreadable {
            aggregate: aggregate("Order", "1"),
            aggregate_version: AggregateVersion::FIRST,
            global_position: position,
            event_id: event_id(),
            error: Error::Event { event_id: event_id(), fault: EventFault::Tampered { problem: "a token is missing" } },
        }))),
        Error::Maintenance(MaintenanceFault::ForeignTarget { position }),
        Error::Maintenance(MaintenanceFault::TargetIsSource),
        Error::Maintenance(MaintenanceFault::TargetInSameFile),
        Error::Maintenance(MaintenanceFault::IncompleteTarget { up_to: position, events: 3, copied: 2 }),
        Error::Maintenance(MaintenanceFault::NotVerified { event_id: event_id(), problem: "a value differs" }),
        Error::Maintenance(MaintenanceFault::NoSealIndex),
        Error::Maintenance(MaintenanceFault::ForeignSealIndex { position }),
        Error::Maintenance(MaintenanceFault::Sink(step_error())),
    ]
}

fn all() -> Vec<Error> {
    [of_callers(), of_events(), of_values(), of_blind_indexes(), of_keys(), of_databases(), of_maintenance()]
        .into_iter()
        .flatten()
        .collect()
}

/// The name of the variant, followed by the name of the inner type's variant if there is one: `Event/Tampered`.
fn name(error: &Error) -> String {
    let shown = format!("{error:?}");
    let (outer, rest) = shown.split_at(shown.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(shown.len()));
    if !INNER.iter().any(|(of, _)| *of == outer) {
        return outer.to_owned();
    }
    let inner = match outer {
        "Event" | "Value" | "BlindIndex" => rest.split_once("fault: ").unwrap().1,
        _ => &rest[1..],
    };
    format!("{outer}/{}", inner.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap())
}

fn described(error: &Error) -> String {
    let marks = [
        ("conflict", error.is_conflict()),
        ("retryable", error.is_retryable()),
        ("outage", error.is_outage()),
        ("shredded", error.is_shredded()),
        ("tampered", error.is_tampered()),
    ];
    let marks: Vec<_> = marks.into_iter().filter(|(_, is)| *is).map(|(mark, _)| mark).collect();
    let mut text = format!("{}\n  kind: {}", name(error), error.kind());
    if !marks.is_empty() {
        text += &format!(", is: {}", marks.join(", "));
    }
    if let Some(event_id) = error.event_id() {
        text += &format!(", event: {}", event_id.as_u128());
    }
    text += &format!("\n  text: {error}\n");
    let mut source = error.source();
    while let Some(below) = source {
        text += &format!("  from: {below}\n");
        source = below.source();
    }
    text
}

#[test]
fn every_error_says_what_the_list_says() {
    let texts: Vec<_> = all().iter().map(described).collect();
    if std::env::var_os("ERRORS").is_some_and(|mode| mode == "record") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/error/every.txt"), texts.join("\n")).unwrap();
        return;
    }
    let listed: Vec<_> = include_str!("every.txt").split("\n\n").map(str::trim_end).collect();
    let texts: Vec<_> = texts.iter().map(|text| text.trim_end()).collect();
    assert_eq!(texts, listed, "if that is meant, run this test with ERRORS=record and read the diff");
}

#[test]
fn every_variant_is_in_the_list() {
    let outer = variants(include_str!("variants.rs")).into_iter().filter(|of| INNER.iter().all(|(has, _)| has != of));
    let inner =
        INNER.iter().flat_map(|(of, source)| variants(source).into_iter().map(move |name| format!("{of}/{name}")));
    let declared: BTreeSet<_> = outer.chain(inner).collect();
    let listed: BTreeSet<_> = all().iter().map(name).collect();
    assert_eq!(declared, listed);
    assert_eq!(declared.len(), 109);
}

/// The names of the variants of the first enum in a source text.
fn variants(source: &str) -> Vec<String> {
    let body = source.split_once("pub enum ").unwrap().1.split("\n}\n").next().unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()).collect()
}

#[test]
fn i9_no_error_shows_what_its_source_holds() {
    for error in all() {
        assert!(!error.to_string().contains(SECRET), "{error}");
        // The text of a KMS client is shown. The client has to leave keys out of it.
        let of_its_client = matches!(error, Error::Kms(KmsFault::Unavailable { .. }));
        assert!(of_its_client || !format!("{error:?}").contains(SECRET), "{error:?}");
    }
}

#[test]
fn an_error_is_small_and_can_be_cloned() {
    assert!(size_of::<Error>() <= 128, "{}", size_of::<Error>());
    for error in all() {
        let cloned = error.clone();
        assert_eq!(described(&cloned), described(&error));
        assert_eq!(format!("{cloned:?}"), format!("{error:?}"));
    }
}

/// An application can downcast a source to the driver's own error, to its KMS client's, and to the error that its step
/// returned.
#[test]
fn sources_lead_to_the_error_of_the_other_code() {
    for error in all() {
        let Some(source) = error.source() else { continue };
        match &error {
            Error::Maintenance(MaintenanceFault::Unreadable(_)) => assert!(source.is::<Error>(), "{error:?}"),
            Error::Event { .. } | Error::Consumer { .. } | Error::Keys(_) | Error::Kms(_) | Error::Maintenance(_) => {
                assert!(source.is::<Foreign>(), "{error:?}");
            }
            error => {
                let said = source.downcast_ref::<DriverError>().unwrap_or_else(|| panic!("{error:?}"));
                assert!(said.driver().is::<Foreign>() || said.driver().is::<std::io::Error>(), "{error:?}");
            }
        }
    }
}
