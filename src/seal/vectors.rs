//! The frozen vectors of format version 1, through the engine: `tests/vectors/v1_pass.json` and
//! `tests/vectors/v1_fail.json`, and what was learnt later, in `v1_pass_2.json` and `v1_fail_2.json`.
//!
//! The files are the format's own proof, shared with every other implementation (`decrypt.py` beside
//! them is one), so no change may edit them. [`write`](mod@write) says what is in them and can make them
//! where they are missing; what is learnt later goes into files of another name. `docs/format.md`
//! describes their members.

mod write;

use crate::crypto::primitives::DataKey;
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{BoundKey, unwrap_key};
use crate::error::{Error, EventFault};
use crate::event::{AggregateRef, EventRef, EventType, EventVersion, NewEvent, aggregate};
use crate::json::pointer::{JsonPointer, Pattern};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::kms::keyring::Keyring;
use crate::kms::{KekContext, Kms, WrappedKek};
use crate::schema::Schemas;
use crate::schema::declare::{Owner, event, subject};
use crate::seal::opening::{KeyStatus, Keys, inspect};
use crate::seal::plan::{Field, FieldOwner, Plan};
use crate::seal::sealing::{Draft, SealingKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// A vector file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    about: String,
    format: u8,
    cases: Vec<Case>,
    wrapped_keys: Vec<WrappedKey>,
}

/// An event in the store, and what a reader makes of it: `opened` and `redacted`, or `error` and `detail`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    namespace: String,
    aggregate_type: String,
    aggregate_id: String,
    event_id: String,
    event_type: String,
    event_version: u32,
    keys: Vec<Key>,
    plan: Vec<Protected>,
    accept_plaintext: bool,
    /// With `plaintext` and `sealed`: what a sealer writes, if a sealer can write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<Bytes>,
    stored: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// A row of the key table. The first one of a scope is its active key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key_id: String,
    scope_kind: String,
    scope_id: String,
    status: Status,
    /// What it is, or was: a reader has it of live keys only.
    secret: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Live,
    Disabled,
    Shredded,
    /// A sealer had it; a reader finds no row.
    Missing,
}

/// A protected place; the pointer `""` is the whole payload.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protected {
    pointer: String,
    scope_kind: String,
    /// Where the scope's id stands; without it, the id is the aggregate's.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope_pointer: Option<String>,
    pad: usize,
    /// A JSON text.
    stand_in: String,
}

/// Text as it is, other bytes in hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

/// A wrapped key, and the key in it; `None` if it must not open.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    name: String,
    wrapping_key: String,
    namespace: String,
    kek_id: String,
    bound_to: Binding,
    wrapped: String,
    key: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Binding {
    /// A key-encryption key under a master key of a keyring.
    KeyEncryptionKey { master_key_id: String },
    /// A data key under a key-encryption key.
    DataKey { key_id: String, scope_kind: String, scope_id: String, version: u32 },
}

type Outcome = Result<(Vec<u8>, Vec<String>), (String, String)>;

impl Case {
    /// What the engine makes of the stored payload.
    fn open(&self) -> Outcome {
        let keys = self.keys.iter().filter_map(|key| Some((key.id(), key.status()?))).collect();
        self.open_with(&self.stored.bytes(), &keys).map_err(|error| kind_of(&error))
    }

    fn open_with(&self, payload: &[u8], keys: &Keys) -> Result<(Vec<u8>, Vec<String>), Error> {
        self.with_event(payload, |event| {
            self.with_plan(|plan| {
                let accept_plaintext = self.accept_plaintext || !plan.protects();
                let Some(closed) = inspect(plan, event, accept_plaintext)? else {
                    return Ok((payload.to_vec(), Vec::new()));
                };
                let opened = closed.open(plan, &self.namespace(), keys)?;
                Ok((
                    opened.payload,
                    opened.redacted.iter().map(|redacted| redacted.place.as_str().to_owned()).collect(),
                ))
            })
        })
    }

    /// What the engine seals the plaintext to.
    fn seal(&self) -> Vec<u8> {
        let new = NewEvent::raw(self.event_type.clone(), self.event_version, self.plaintext.as_ref().unwrap().bytes())
            .with_id(parse(&self.event_id));
        let aggregate = self.aggregate();
        self.with_plan(|plan| {
            let Some(draft) = Draft::new(plan, new.to_store(&aggregate)).unwrap() else { return new.payload.clone() };
            let active = |scope: &KeyScope| {
                let key = self.keys.iter().find(|key| key.scope() == *scope).unwrap();
                (key.id(), key.data_key())
            };
            let keys: Vec<_> = draft.scopes.iter().map(active).collect();
            let keys: Vec<_> = keys.iter().map(|(id, key)| SealingKey { id: *id, key }).collect();
            let (id, key) = active(&KeyScope::integrity());
            let salt = bytes_of(self.salt.as_ref().unwrap());
            draft.seal(&self.namespace(), &keys, &SealingKey { id, key: &key }, &salt.try_into().unwrap()).unwrap()
        })
    }

    fn with_event<T>(&self, payload: &[u8], use_it: impl FnOnce(EventRef<'_>) -> T) -> T {
        use_it(EventRef {
            aggregate: &self.aggregate(),
            event_id: parse(&self.event_id),
            event_type: &EventType::from(self.event_type.clone()),
            event_version: EventVersion::new(self.event_version),
            payload,
        })
    }

    fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_str()).unwrap()
    }

    fn aggregate(&self) -> AggregateRef {
        aggregate(self.aggregate_type.as_str(), self.aggregate_id.as_str())
    }

    fn with_plan<T>(&self, use_it: impl FnOnce(&Plan) -> T) -> T {
        if self.plan.iter().any(|field| field.pointer.starts_with("/*")) {
            return use_it(&self.plan_of_no_schema());
        }
        let schemas = self.schemas();
        let schema = schemas.for_read(
            parse(&self.event_id),
            &self.event_type.as_str().into(),
            EventVersion::new(self.event_version),
        );
        use_it(&schema.unwrap().unwrap().schema.plan)
    }

    /// Schemas refuse a plan that can never seal. A reader that has one must not take it for no plan.
    fn plan_of_no_schema(&self) -> Plan {
        let field = |field: &Protected| {
            let pattern = Pattern::parse(&field.pointer).unwrap();
            let place = (pattern.stars() == 0).then(|| JsonPointer::new_unchecked(pattern.at(&[])));
            let owner = FieldOwner::Aggregate { kind: Some(field.scope_kind.as_str().into()) };
            Field { pattern: Some(pattern), place, owner, pad: field.pad, stand_in: field.stand_in.as_str().into() }
        };
        Plan { fields: self.plan.iter().map(field).collect(), ..Plan::default() }.compile()
    }

    fn schemas(&self) -> Schemas {
        let mut schema = event(self.event_type.clone()).version(self.event_version);
        if self.plan.is_empty() {
            schema = schema.unprotected("a reader that protects nothing");
        }
        for field in &self.plan {
            let owner = match &field.scope_pointer {
                Some(pointer) => subject(field.scope_kind.as_str(), pointer.as_str()),
                None => Owner::Aggregate.scope_kind(field.scope_kind.as_str()),
            };
            schema = match field.pointer.as_str() {
                "" => schema.protect_whole(owner),
                pointer => schema.protect(&[pointer], owner),
            };
            let stand_in: serde_json::Value = serde_json::from_str(&field.stand_in).unwrap();
            schema = schema.redact_as(&field.pointer, stand_in).pad_to(&field.pointer, field.pad);
        }
        Schemas::new([schema]).unwrap()
    }
}

impl Key {
    fn id(&self) -> KeyId {
        KeyId(parse(&self.key_id))
    }

    fn scope(&self) -> KeyScope {
        KeyScope::new(self.scope_kind.as_str(), self.scope_id.as_str())
    }

    fn data_key(&self) -> DataKey {
        DataKey::new(&bytes_of(&self.secret).try_into().unwrap()).unwrap()
    }

    fn live(&self) -> KeyStatus {
        KeyStatus::Live { scope: self.scope(), key: Arc::new(self.data_key()) }
    }

    fn status(&self) -> Option<KeyStatus> {
        match self.status {
            Status::Live => Some(self.live()),
            Status::Disabled => Some(KeyStatus::Disabled { scope: self.scope() }),
            Status::Shredded => Some(KeyStatus::Shredded { scope: self.scope() }),
            Status::Missing => None,
        }
    }
}

impl WrappedKey {
    fn open(&self) -> Option<SecretKey> {
        let namespace = Namespace::new(self.namespace.as_str()).unwrap();
        let (wrapped, kek_id) = (bytes_of(&self.wrapped), KekId(parse(&self.kek_id)));
        match &self.bound_to {
            Binding::KeyEncryptionKey { master_key_id } => {
                let ring =
                    Keyring::parse(&format!("{master_key_id}:{}", STANDARD.encode(bytes_of(&self.wrapping_key))))
                        .unwrap();
                let wrapped = WrappedKek { master_key_id: master_key_id.clone(), ciphertext: wrapped };
                futures::executor::block_on(ring.unwrap_kek(&wrapped, &KekContext { namespace, kek_id })).ok()
            }
            Binding::DataKey { key_id, scope_kind, scope_id, version } => {
                let scope = KeyScope::new(scope_kind.as_str(), scope_id.as_str());
                let bound = BoundKey {
                    namespace: &namespace,
                    key_id: KeyId(parse(key_id)),
                    scope: &scope,
                    version: *version,
                    kek_id,
                };
                let kek = SecretKey::new(bytes_of(&self.wrapping_key).try_into().unwrap());
                bound.with(|associated_data| unwrap_key(&kek, associated_data, &wrapped))
            }
        }
    }
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex { hex } => bytes_of(hex),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Hex { hex: hex_of(error.as_bytes()) }, Self::Text)
    }
}

/// What `docs/format.md` calls each problem of a seal that does not hold.
const CHECKS: [(&str, &str); 12] = [
    ("a member on a protected path occurs twice", "duplicate"),
    ("the header is not base64url", "header-encoding"),
    ("the header is malformed", "header-layout"),
    ("a sealed value is missing", "values"),
    ("the header names an integrity key as a data key", "reserved-key"),
    ("the header is not authentic", "commitment"),
    ("the header's tag is not authentic", "tag"),
    ("a sealed value is not base64url", "token-encoding"),
    ("a sealed value is not authentic", "token"),
    ("a sealed value is malformed", "token-shape"),
    ("a void place holds a value", "void-value"),
    ("a void entry names a key that is not shredded", "void-key"),
];

fn kind_of(error: &Error) -> (String, String) {
    let (kind, detail) = match error {
        Error::Event { fault: EventFault::Tampered { problem }, .. } => {
            ("Tampered", CHECKS.iter().find(|(text, _)| text == problem).unwrap().1.to_owned())
        }
        Error::Event { fault: EventFault::Unsupported { what, .. }, .. } => ("Unsupported", (*what).to_owned()),
        Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. } => ("Unsealed", pointer.as_str().to_owned()),
        Error::Event { fault: EventFault::ShapeMismatch { pointer, .. }, .. } => {
            ("ShapeMismatch", pointer.as_str().to_owned())
        }
        Error::Event { fault: EventFault::MissingKey { key_id }, .. } => ("MissingKey", key_id.to_string()),
        Error::Disabled { scope } => ("Disabled", scope.to_string()),
        Error::Event { fault: EventFault::InvalidPayload { .. }, .. } => ("InvalidPayload", String::new()),
        Error::Event { fault: EventFault::LimitExceeded { .. }, .. } => ("LimitExceeded", String::new()),
        other => panic!("no reader of a stored payload fails like this: {other}"),
    };
    (kind.to_owned(), detail)
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert!(hex.is_ascii() && hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn parse(id: &str) -> Uuid {
    Uuid::parse_str(id).unwrap()
}

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", file].iter().collect()
}

fn read(file: &str) -> Vectors {
    let text = std::fs::read_to_string(path(file)).unwrap_or_else(|error| {
        panic!("{file}: {error}. Restore it from version control; only a new format has new vectors.");
    });
    serde_json::from_str(&text).unwrap()
}

fn cases_of(files: [&str; 2]) -> Vec<Case> {
    let cases = files.map(|file| {
        let vectors = read(file);
        assert_eq!((vectors.format, vectors.cases.is_empty()), (1, false), "{file}");
        vectors.cases
    });
    cases.concat()
}

/// I1, I4: what the files promise about payloads that hold.
#[test]
fn i1_the_pass_vectors_seal_and_open_to_their_bytes() {
    for case in &cases_of(["v1_pass.json", "v1_pass_2.json"]) {
        let name = &case.name;
        if let Some(sealed) = &case.sealed {
            assert_eq!(Bytes::from(case.seal()), *sealed, "{name}: sealed");
            let all = case.keys.iter().map(|key| (key.id(), key.live())).collect();
            let (opened, redacted) = case.open_with(&sealed.bytes(), &all).unwrap();
            assert_eq!(Some(Bytes::from(opened)), case.plaintext, "{name}: sealed and opened again");
            assert!(redacted.is_empty(), "{name}");
        }
        let (opened, redacted) = case.open().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(Some(Bytes::from(opened)), case.opened, "{name}: opened");
        assert_eq!(Some(redacted), case.redacted, "{name}: redacted");
        assert!(case.error.is_none(), "{name}");
    }
}

/// I3, I4: what the files promise about payloads that do not hold, down to the check that refuses them.
#[test]
fn i3_the_fail_vectors_fail_for_their_reasons() {
    let mut checks = BTreeSet::new();
    for case in &cases_of(["v1_fail.json", "v1_fail_2.json"]) {
        let name = &case.name;
        let Err((error, detail)) = case.open() else { panic!("{name}: it opened") };
        assert_eq!((Some(&error), Some(&detail)), (case.error.as_ref(), case.detail.as_ref()), "{name}");
        assert!(case.opened.is_none() && case.redacted.is_none(), "{name}");
        checks.insert(detail);
    }
    for (_, check) in CHECKS {
        assert!(checks.contains(check), "no vector fails for {check}");
    }
}

#[test]
fn i3_wrapped_keys_open_to_what_the_vectors_say() {
    for (file, opens) in [("v1_pass.json", true), ("v1_fail.json", false)] {
        let vectors = read(file);
        assert!(!vectors.wrapped_keys.is_empty(), "{file}");
        for wrapped in &vectors.wrapped_keys {
            let key = wrapped.open().map(|key| hex_of(key.expose()));
            assert_eq!(key, wrapped.key, "{}", wrapped.name);
            assert_eq!(key.is_some(), opens, "{}", wrapped.name);
        }
    }
}

/// The writer goes on making the files that were frozen. Where they are missing (a format of its own
/// has files of its own), `EVENTSEAL_WRITE_VECTORS=1` writes them; it never overwrites one.
#[test]
fn the_files_are_what_the_writer_writes() {
    for (file, vectors) in [
        ("v1_pass.json", write::pass()),
        ("v1_fail.json", write::fail()),
        ("v1_pass_2.json", write::later::pass()),
        ("v1_fail_2.json", write::later::fail()),
    ] {
        let text = serde_json::to_string_pretty(&vectors).unwrap() + "\n";
        if !path(file).exists() && std::env::var("EVENTSEAL_WRITE_VECTORS").is_ok_and(|value| value == "1") {
            let mut new =
                std::fs::OpenOptions::new().write(true).create_new(true).open(path(file)).unwrap_or_else(|error| {
                    panic!("{file}: {error}. Vectors are frozen: new cases go into a new file.");
                });
            std::io::Write::write_all(&mut new, text.as_bytes()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path(file)).is_ok_and(|frozen| frozen == text),
            "{file} differs from what the engine writes"
        );
    }
}
