//! The vector files as types, and the engine's result for a case.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::error::EventFault;
use eventseal::internals::format::{Place, Protection, State, unwrap_data_key};
use eventseal::keys::{KekId, KeyId};
use eventseal::kms::{KekContext, Kms, WrappedKek};
use eventseal::schema::EventSchema;
use eventseal::{
    AggregateRef, Error, KeyScope, Keyring, Namespace, NewEvent, Owner, aggregate, event, metadata, subject,
};
use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A vector file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vectors {
    pub(super) about: String,
    pub(super) format: u8,
    pub(super) cases: Vec<Case>,
    pub(super) wrapped_keys: Vec<WrappedKey>,
}

/// An event in the store, and what a reader makes of it: `opened` and `redacted`, or `error` and `detail`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// `metadata`, if the texts are those of the metadata and not of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) document: Option<String>,
    pub(super) namespace: String,
    pub(super) aggregate_type: String,
    pub(super) aggregate_id: String,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) event_version: u32,
    pub(super) keys: Vec<Key>,
    pub(super) plan: Vec<Protected>,
    pub(super) accept_plaintext: bool,
    /// With `plaintext` and `sealed`: what a sealer writes, if a sealer can write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plaintext: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<Bytes>,
    pub(super) stored: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redacted: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

/// A row of the key table. The first one of a scope is its active key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) key_id: String,
    pub(super) scope_kind: String,
    pub(super) scope_id: String,
    pub(super) status: Status,
    /// The key's bytes. A reader has them for live keys only.
    pub(super) secret: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Live,
    Disabled,
    Shredded,
    /// A sealer had it; a reader finds no row.
    Missing,
}

/// A protected place; the pointer `""` is the whole payload.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Protected {
    pub(super) pointer: String,
    pub(super) scope_kind: String,
    /// Where the scope's id stands; without it, the id is the aggregate's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope_pointer: Option<String>,
    pub(super) pad: usize,
    /// A JSON text.
    pub(super) stand_in: String,
}

/// Text as it is, other bytes in hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Text(String),
    Hex { hex: String },
}

/// A wrapped key, and the key in it; `None` if it must not open.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrappedKey {
    pub(super) name: String,
    pub(super) wrapping_key: String,
    pub(super) namespace: String,
    pub(super) kek_id: String,
    pub(super) bound_to: Binding,
    pub(super) wrapped: String,
    pub(super) key: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Binding {
    /// A key-encryption key under a master key of a keyring.
    KeyEncryptionKey { master_key_id: String },
    /// A data key under a key-encryption key.
    DataKey { key_id: String, scope_kind: String, scope_id: String, version: u32 },
}

pub(super) type Outcome = Result<(Vec<u8>, Vec<String>), (String, String)>;

impl Case {
    /// The engine's result for the stored payload.
    pub(super) fn open(&self) -> Outcome {
        let rows = |key: &Key| Some((key.id(), key.scope(), key.state()?));
        let keys: Vec<_> = self.keys.iter().filter_map(rows).collect();
        self.open_with(&self.stored.bytes(), &keys).map_err(|error| kind_of(&error))
    }

    /// The engine's result for this payload while all keys are live.
    pub(super) fn open_live(&self, payload: &[u8]) -> Result<(Vec<u8>, Vec<String>), Error> {
        let rows = |key: &Key| (key.id(), key.scope(), State::Live(key.bytes()));
        self.open_with(payload, &self.keys.iter().map(rows).collect::<Vec<_>>())
    }

    fn open_with(&self, payload: &[u8], keys: &[(KeyId, KeyScope, State)]) -> Result<(Vec<u8>, Vec<String>), Error> {
        let (namespace, aggregate) = (self.namespace(), self.aggregate());
        let (opened, redacted) =
            self.protection().open(&namespace, &aggregate, &self.event(payload), keys, self.accept_plaintext)?;
        Ok((opened, redacted.iter().map(|place| place.as_str().to_owned()).collect()))
    }

    /// The sealed payload that the engine makes of the plaintext.
    pub(super) fn seal(&self) -> Vec<u8> {
        let event = self.event(&self.plaintext.as_ref().unwrap().bytes());
        let active = |scope: &KeyScope| {
            let key = self.keys.iter().find(|key| key.scope() == *scope).unwrap();
            (key.id(), key.bytes())
        };
        let salt = bytes_of(self.salt.as_ref().unwrap()).try_into().unwrap();
        self.protection().seal(&self.namespace(), &self.aggregate(), &event, active, &salt).unwrap()
    }

    /// With this payload.
    pub(super) fn event(&self, payload: &[u8]) -> NewEvent {
        let event = |payload| NewEvent::raw(self.event_type.clone(), self.event_version, payload);
        let event = match self.is_metadata() {
            false => event(payload.to_vec()),
            true => event(b"{}".to_vec()).with_metadata(payload),
        };
        event.with_id(parse(&self.event_id))
    }

    pub(super) fn is_metadata(&self) -> bool {
        self.document.is_some()
    }

    pub(super) fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_str()).unwrap()
    }

    pub(super) fn aggregate(&self) -> AggregateRef {
        aggregate(self.aggregate_type.as_str(), self.aggregate_id.as_str())
    }

    fn protection(&self) -> Protection {
        // Schemas refuse a plan that can never seal. A reader that has one must not take it for no plan.
        if self.plan.iter().any(|field| field.pointer.starts_with("/*")) {
            let places: Vec<_> = self.plan.iter().map(Protected::place).collect();
            return Protection::unchecked(&places).unwrap();
        }
        let protection = Protection::of(self.schema()).unwrap();
        if self.is_metadata() { protection.of_metadata() } else { protection }
    }

    fn schema(&self) -> EventSchema {
        let mut schema = event(self.event_type.clone()).version(self.event_version);
        if self.plan.is_empty() {
            schema = schema.unprotected("a reader that protects nothing");
        }
        for field in &self.plan {
            let owner = match &field.scope_pointer {
                Some(pointer) if self.is_metadata() => metadata(field.scope_kind.as_str(), pointer.as_str()),
                Some(pointer) => subject(field.scope_kind.as_str(), pointer.as_str()),
                None => Owner::Aggregate.scope_kind(field.scope_kind.as_str()),
            };
            let stand_in: serde_json::Value = serde_json::from_str(&field.stand_in).unwrap();
            if self.is_metadata() {
                schema = schema.protect_metadata(&[&field.pointer], owner).pad_metadata_to(&field.pointer, field.pad);
                schema = schema.redact_metadata_as(&field.pointer, stand_in);
                continue;
            }
            schema = match field.pointer.as_str() {
                "" => schema.protect_whole(owner),
                pointer => schema.protect(&[pointer], owner),
            };
            schema = schema.redact_as(&field.pointer, stand_in).pad_to(&field.pointer, field.pad);
        }
        schema
    }
}

impl Protected {
    fn place(&self) -> Place<'_> {
        let Self { pointer, scope_kind, pad, stand_in, .. } = self;
        Place { pattern: pointer, scope_kind, pad: *pad, stand_in }
    }
}

impl Key {
    pub(super) fn id(&self) -> KeyId {
        KeyId(parse(&self.key_id))
    }

    pub(super) fn scope(&self) -> KeyScope {
        KeyScope::new(self.scope_kind.as_str(), self.scope_id.as_str())
    }

    pub(super) fn bytes(&self) -> [u8; 32] {
        bytes_of(&self.secret).try_into().unwrap()
    }

    pub(super) fn state(&self) -> Option<State> {
        match self.status {
            Status::Live => Some(State::Live(self.bytes())),
            Status::Disabled => Some(State::Disabled),
            Status::Shredded => Some(State::Shredded),
            Status::Missing => None,
        }
    }
}

impl WrappedKey {
    pub(super) fn open(&self) -> Option<[u8; 32]> {
        let namespace = Namespace::new(self.namespace.as_str()).unwrap();
        let (wrapped, kek_id) = (bytes_of(&self.wrapped), KekId(parse(&self.kek_id)));
        match &self.bound_to {
            Binding::KeyEncryptionKey { master_key_id } => {
                let ring =
                    Keyring::parse(&format!("{master_key_id}:{}", STANDARD.encode(bytes_of(&self.wrapping_key))))
                        .unwrap();
                let wrapped = WrappedKek { master_key_id: master_key_id.clone(), ciphertext: wrapped };
                let kek = block_on(ring.unwrap_kek(&wrapped, &KekContext { namespace, kek_id })).ok()?;
                Some(*kek.expose())
            }
            Binding::DataKey { key_id, scope_kind, scope_id, version } => {
                let scope = KeyScope::new(scope_kind.as_str(), scope_id.as_str());
                let kek = bytes_of(&self.wrapping_key).try_into().unwrap();
                unwrap_data_key((kek_id, &kek), &namespace, (KeyId(parse(key_id)), &scope, *version), &wrapped)
            }
        }
    }
}

impl Bytes {
    pub(super) fn bytes(&self) -> Vec<u8> {
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

/// The name that `docs/format.md` gives to each problem of a seal that does not hold.
pub(super) const CHECKS: [(&str, &str); 12] = [
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

pub(super) fn kind_of(error: &Error) -> (String, String) {
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

pub(super) fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    assert!(hex.is_ascii() && hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

pub(super) fn parse(id: &str) -> Uuid {
    Uuid::parse_str(id).unwrap()
}
