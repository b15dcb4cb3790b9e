//! One error of each variant, with its kind and its text: `every.txt` lists them, so that a change of either is seen.
//!
//! `ERRORS=record cargo test … --lib error` writes the list anew.

use super::variants::{Error, StepError};
use super::{BoxError, DriverError};
use crate::event::{AggregateVersion, EventType, EventVersion, ExpectedVersion, GlobalPosition, Unreadable, aggregate};
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::kms::KmsFailure;
use crate::schema::{SchemaError, SchemaErrors, SchemaProblem};
use std::collections::BTreeSet;
use std::error::Error as _;
use uuid::Uuid;

/// What sources hold, and no text of this crate repeats.
const SECRET: &str = "SECRET";

/// What an application's error shows of itself.
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
    StepError(Foreign(SECRET).into())
}

/// What is about one event.
fn of_events() -> Vec<Error> {
    let (event_id, event_type, event_version) = (event_id(), event_type(), version(2));
    let kind = || "Customer".to_owned();
    vec![
        Error::InvalidPayload { event_id, offset: 3, problem: "a value is missing" },
        Error::UnreadablePayload { event_id, line: 1, column: 5 },
        Error::InvalidMetadata { event_id, problem: "is not JSON: correct it" },
        Error::ReservedMember { event_id },
        Error::DuplicateMember { event_id, pointer: pointer() },
        Error::ShapeMismatch { event_id, pointer: pointer(), expected: "an object" },
        Error::MissingScopeId { event_id, field: pointer(), kind: kind(), pointer: "/customer/id".into() },
        Error::InvalidScopeId { event_id, kind: kind(), pointer: "/customer/id".into(), problem: "is a list" },
        Error::PrivateMember { event_id, pointer: pointer() },
        Error::SensitiveInTheClear { event_id, event_type: event_type.clone(), event_version, pointer: pointer() },
        Error::LimitExceeded { event_id, what: "the payload's nesting", limit: 500 },
        Error::CatchAll { event_id, event_type: event_type.clone(), target: "OrderEvent" },
        Error::Tampered { event_id, problem: "a token is missing" },
        Error::Unsealed { event_id, event_type: event_type.clone(), pointer: pointer() },
        Error::OtherOwner { event_id, pointer: pointer() },
        Error::Unsupported { event_id, what: "suite", value: 9 },
        Error::StillSealed { event_id, event_type: event_type.clone() },
        Error::MissingKey { event_id, key_id: key_id() },
        Error::UndeclaredVersion { event_id, event_type: event_type.clone(), event_version, hint: "declare it".into() },
        Error::UnknownType { event_id, event_type: event_type.clone() },
        Error::NewerVersion { event_id, event_type: event_type.clone(), event_version, known: version(1) },
        Error::UnknownVersion { event_id, event_type: event_type.clone(), event_version, oldest: version(5) },
        Error::Upcast {
            event_id,
            event_type: event_type.clone(),
            from: event_version,
            step: "typed, to OrderPlaced version 3".into(),
            problem: "it returned an error".into(),
            source: Some(step_error()),
        },
        Error::Decode {
            event_id,
            event_type: event_type.clone(),
            event_version,
            target: "Order",
            problem: "missing field `id`".into(),
        },
        Error::UnexpectedType { event_id, event_type: event_type.clone(), target: "OrderEvent" },
        Error::UnexpectedVersion { event_id, event_type, event_version, expected: version(3), target: "Order" },
    ]
}

/// Of what was passed, and of the aggregate and the scope it is for.
fn of_callers() -> Vec<Error> {
    vec![
        Error::VersionConflict {
            aggregate: aggregate("Order", "1"),
            expected: ExpectedVersion::NoStream,
            actual: Some(AggregateVersion::FIRST),
        },
        Error::DuplicateEventId { event_id: event_id() },
        Error::EmptyAppend,
        Error::InvalidText { what: "the event type", problem: "is empty" },
        Error::OutOfRange { what: "global position", value: -1, hint: "positions begin with 1" },
        Error::SimilarKind { aggregate_type: "customer".into(), declared: "Customer".into() },
        Error::Encode { target: "Order", problem: "a key is no text".into() },
        Error::Shredded { scope: scope() },
        Error::Disabled { scope: scope() },
        Error::ScopeState { scope: scope(), problem: "is not shredded: nothing is to be reopened" },
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

/// Of keys and the KMS.
fn of_keys() -> Vec<Error> {
    let failure = KmsFailure::TimedOut;
    vec![
        Error::WrongKey { key_id: key_id(), kek_id: kek_id() },
        Error::MissingKek { kek_id: kek_id() },
        Error::NoActiveKek { partition: "eu".into() },
        Error::KekInUse { kek_id: kek_id(), problem: "is active: rotate first".into() },
        Error::KmsUnavailable { failure, source: Foreign(SECRET).into() },
        Error::KmsRefused { kek_id: kek_id(), failure: KmsFailure::AccessDenied, problem: "grant it".into() },
        Error::Keyring { problem: "entry 2 has no key".into() },
        Error::Cryptography,
        Error::Random,
    ]
}

/// Of the database, its tables and its transactions.
fn of_databases() -> Vec<Error> {
    let (operation, position) = ("shredding", GlobalPosition::START);
    let away = || DriverError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let namespace = |name: &str| Namespace::new(name).unwrap();
    vec![
        Error::Collision { source: Some(said()) },
        Error::Database { operation, source: said() },
        Error::Database { operation, source: away() },
        Error::OutcomeUnknown { operation, source: away() },
        Error::NotInTransaction { operation },
        Error::InTransaction { operation },
        Error::NotCommitted { operation },
        Error::NotDurable { operation },
        Error::SplitChange,
        Error::NotMigrated,
        Error::NamespaceMismatch { configured: namespace("shop"), found: namespace("test") },
        Error::NoEventTables { of: "database", table: "events".into() },
        Error::TablesExist { source: said() },
        Error::OutdatedTables { operation, source: said() },
        Error::NewerTables { found: 9, known: 8 },
        Error::PermissionDenied { operation, source: said() },
        Error::NoUniqueVersion { table: "events".into(), source: Foreign(SECRET).into() },
        Error::PositionTaken { source: said() },
        Error::NoSequence { table: "events".into() },
        Error::PooledStatements { operation, source: said() },
        Error::NoEffect { operation, table: "data_keys" },
        Error::InvalidRow { what: "the state of a key scope", problem: "is unknown" },
        Error::InvalidEvent { position, what: "event_version", problem: "is negative" },
        Error::Contract { problem: "it returned no versions" },
    ]
}

/// Of maintenance.
fn of_maintenance() -> Vec<Error> {
    let position = GlobalPosition::START;
    vec![
        Error::Unreadable(Box::new(Unreadable {
            aggregate: aggregate("Order", "1"),
            aggregate_version: AggregateVersion::FIRST,
            global_position: position,
            event_id: event_id(),
            error: Error::Tampered { event_id: event_id(), problem: "a token is missing" },
        })),
        Error::ForeignTarget { position },
        Error::TargetIsSource,
        Error::TargetInSameFile,
        Error::IncompleteTarget { up_to: position, events: 3, copied: 2 },
        Error::NotVerified { event_id: event_id(), problem: "a value differs" },
    ]
}

fn all() -> Vec<Error> {
    [of_callers(), of_events(), of_keys(), of_databases(), of_maintenance()].into_iter().flatten().collect()
}

/// The name of the variant.
fn name(error: &Error) -> String {
    let shown = format!("{error:?}");
    shown.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
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
    let declared: BTreeSet<_> = [include_str!("variants.rs")].into_iter().flat_map(variants).collect();
    let listed: BTreeSet<_> = all().iter().map(name).collect();
    assert_eq!(declared, listed);
    assert_eq!(declared.len(), 76);
}

/// The variants of the first enum of a source.
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
        let of_its_client = matches!(error, Error::KmsUnavailable { .. } | Error::NoUniqueVersion { .. });
        assert!(of_its_client || !format!("{error:?}").contains(SECRET), "{error:?}");
    }
}
