//! The vectors of values outside of events, through the engine.

use super::case::{Bytes, Key, bytes_of, parse};
use super::path;
use eventseal::error::ValueFault;
use eventseal::internals::format::{State, open_value, seal_value};
use eventseal::keys::KeyId;
use eventseal::values::{NewValue, SealedValue, StoredValue, ValueContext};
use eventseal::{Error, KeyScope, Namespace, Sensitive};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A vector file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Values {
    pub(super) about: String,
    pub(super) format: u8,
    pub(super) values: Vec<Value>,
}

/// A stored value, and what a reader makes of it: `opened` (absent if it is redacted), or `error` and `detail`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) scope_kind: String,
    pub(super) scope_id: String,
    pub(super) context: Vec<String>,
    pub(super) keys: Vec<Key>,
    /// With `pad`, `plaintext` and `sealed`: what a sealer writes, if a sealer can write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pad: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plaintext: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<String>,
    /// The text that a reader gets.
    pub(super) stored: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redacted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl Value {
    pub(super) fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_str()).unwrap()
    }

    pub(super) fn context(&self) -> ValueContext {
        ValueContext::new(self.context.iter().cloned())
    }

    fn scope(&self) -> KeyScope {
        KeyScope::new(self.scope_kind.as_str(), self.scope_id.as_str())
    }

    fn open(&self, text: &str, keys: &[(KeyId, KeyScope, State)]) -> Result<Sensitive<Vec<u8>>, Error> {
        let value: SealedValue = text.parse()?;
        open_value(&self.namespace(), &StoredValue::new(&self.scope(), self.context(), &value), keys)
    }

    fn open_stored(&self) -> Result<Sensitive<Vec<u8>>, Error> {
        let rows = self.keys.iter().filter_map(|key| Some((key.id(), key.scope(), key.state()?)));
        self.open(&self.stored, &rows.collect::<Vec<_>>())
    }

    /// What the engine makes of the plaintext, under the first key of the scope.
    pub(super) fn seal(&self) -> String {
        let key = |scope: &KeyScope| self.keys.iter().find(|key| key.scope() == *scope).unwrap();
        let (owner, integrity) = (key(&self.scope()), key(&KeyScope::integrity()));
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        let value = NewValue::new(&self.scope(), self.context(), &plaintext).pad_to(self.pad.unwrap());
        let salt = bytes_of(self.salt.as_ref().unwrap()).try_into().unwrap();
        let (secret, of_integrity) = (owner.bytes(), integrity.bytes());
        let keys = ((owner.id(), &secret), (integrity.id(), &of_integrity));
        seal_value(&self.namespace(), &value, keys.0, keys.1, &salt).unwrap().to_string()
    }
}

/// The name that `docs/format.md` gives to each problem of a value's seal that does not hold.
const CHECKS: [(&str, &str); 6] = [
    ("the header is malformed", "header-layout"),
    ("the ciphertext is malformed", "ciphertext-shape"),
    ("the header names an integrity key as a data key", "reserved-key"),
    ("the header is not authentic", "commitment"),
    ("the header's tag is not authentic", "tag"),
    ("the ciphertext is not authentic", "ciphertext"),
];

fn kind_of(error: &Error) -> (String, String) {
    let (kind, detail) = match error {
        Error::Value { fault: ValueFault::Tampered { problem }, .. } => {
            ("Tampered", CHECKS.iter().find(|(text, _)| text == problem).unwrap().1.to_owned())
        }
        Error::Value { fault: ValueFault::OtherOwner, .. } => ("OtherOwner", String::new()),
        Error::Value { fault: ValueFault::Unsupported { what, .. }, .. } => ("Unsupported", (*what).to_owned()),
        Error::Value { fault: ValueFault::MissingKey { key_id }, .. } => ("MissingKey", key_id.to_string()),
        Error::Disabled { scope } => ("Disabled", scope.to_string()),
        Error::Input(_) => ("InvalidText", String::new()),
        other => panic!("no reader of a stored value fails like this: {other}"),
    };
    (kind.to_owned(), detail)
}

fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let vectors: Values = serde_json::from_str(&text).unwrap();
    assert_eq!((vectors.format, vectors.values.is_empty()), (1, false), "{file}");
    vectors.values
}

#[test]
fn i1_the_pass_vectors_of_values_seal_and_open_to_their_bytes() {
    for value in read("v1_value_pass.json") {
        let name = &value.name;
        if let Some(sealed) = &value.sealed {
            assert_eq!(value.seal(), *sealed, "{name}: sealed");
            let rows = value.keys.iter().map(|key| (key.id(), key.scope(), State::Live(key.bytes())));
            let opened = value.open(sealed, &rows.collect::<Vec<_>>()).unwrap();
            assert_eq!(opened.into_exposed().map(Bytes::from), value.plaintext, "{name}: sealed and opened again");
        }
        let opened = value.open_stored().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(Some(opened.is_redacted()), value.redacted, "{name}");
        assert_eq!(opened.into_exposed().map(Bytes::from), value.opened, "{name}: opened");
        assert!(value.error.is_none() && parse(&value.keys[0].key_id).get_version_num() == 4, "{name}");
    }
}

#[test]
fn i3_the_fail_vectors_of_values_fail_for_their_reasons() {
    let mut checks = BTreeSet::new();
    for value in read("v1_value_fail.json") {
        let name = &value.name;
        let Err(error) = value.open_stored() else { panic!("{name}: it opened") };
        let (error, detail) = kind_of(&error);
        assert_eq!((Some(&error), Some(&detail)), (value.error.as_ref(), value.detail.as_ref()), "{name}");
        checks.insert(detail);
    }
    for (_, check) in CHECKS {
        assert!(checks.contains(check), "no vector fails for {check}");
    }
}
