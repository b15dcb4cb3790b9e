//! Builds the cases of the vectors: the payload that a sealer writes, the change that an attacker makes, and the result
//! that a reader gets.

use crate::vectors::case::{Bytes, Case, Key, Protected, Status, bytes_of, hex_of, parse};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use eventseal::internals::format::{Core, Entry, EventKey, PADDING, Transcript, bytes_of_token, token};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

pub(super) const INTEGRITY: &str = "integrity";
pub(super) const CUSTOMER: &str = "customer 42";
pub(super) const ORDER: &str = "order 7";

// Where things stand in a header with one key.
pub(super) const SALT: usize = 4;
pub(super) const INTEGRITY_ID: usize = 20;
pub(super) const KEYS: usize = 36;
pub(super) const FIRST_KEY: usize = 38;
pub(super) const ENTRIES: usize = 54;
pub(super) const FIRST_ENTRY: usize = 56;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Fields,
    Whole,
}

/// An entry of a header.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Sealed,
    Void,
}

pub(super) fn customer(name: &str) -> Case {
    case(name, "Customer", "cust_42", "CustomerRegistered", key(CUSTOMER, "Customer", "cust_42"))
}

pub(super) fn order(name: &str) -> Case {
    case(name, "Order", "ord_7", "OrderPlaced", key(ORDER, "Order", "ord_7"))
}

/// An order with a place of its own and one of its customer's; the order's key is the first in the header.
pub(super) fn two(name: &str) -> Case {
    order(name)
        .protect("/card")
        .protect_for("/name", "Customer", "/customer_id")
        .key(CUSTOMER, "Customer", "cust_42")
        .seals(r#"{"customer_id":"cust_42","card":{"no":"4111","cvc":"123"},"name":"Ada"}"#)
}

pub(super) fn case(name: &str, aggregate_type: &str, aggregate_id: &str, event_type: &str, owner: Key) -> Case {
    Case {
        name: name.into(),
        document: None,
        namespace: "shop-test".into(),
        aggregate_type: aggregate_type.into(),
        aggregate_id: aggregate_id.into(),
        event_id: id_of(name),
        event_type: event_type.into(),
        event_version: 1,
        keys: vec![key(INTEGRITY, "$eventseal", "integrity"), owner],
        plan: Vec::new(),
        accept_plaintext: false,
        salt: Some(hex_of(&salt(name))),
        plaintext: None,
        sealed: None,
        stored: Bytes::Text(String::new()),
        opened: None,
        redacted: None,
        error: None,
        detail: None,
    }
}

impl Case {
    /// Also gives the aggregate's key its scope.
    pub(super) fn named(
        mut self,
        namespace: &str,
        aggregate_type: &str,
        aggregate_id: &str,
        event_type: &str,
        event_version: u32,
    ) -> Self {
        self.keys[1].scope_id = aggregate_id.into();
        self.namespace = namespace.into();
        self.aggregate_type = aggregate_type.into();
        self.aggregate_id = aggregate_id.into();
        self.event_type = event_type.into();
        self.event_version = event_version;
        self
    }

    pub(super) fn key(mut self, label: &str, kind: &str, id: &str) -> Self {
        self.keys.push(key(label, kind, id));
        self
    }

    /// Under the aggregate's key.
    pub(super) fn protect(mut self, pointer: &str) -> Self {
        let scope_kind = self.keys[1].scope_kind.clone();
        self.plan.push(Protected {
            pointer: pointer.into(),
            scope_kind,
            scope_pointer: None,
            pad: PADDING,
            stand_in: "null".into(),
        });
        self
    }

    pub(super) fn protect_for(self, pointer: &str, kind: &str, scope_pointer: &str) -> Self {
        self.protect(pointer).owned_by(kind, scope_pointer)
    }

    pub(super) fn owned_by(self, kind: &str, scope_pointer: &str) -> Self {
        self.last(|field| {
            field.scope_kind = kind.into();
            field.scope_pointer = Some(scope_pointer.into());
        })
    }

    pub(super) fn pad(self, pad: usize) -> Self {
        self.last(|field| field.pad = pad)
    }

    pub(super) fn stand_in(self, json: &str) -> Self {
        self.last(|field| field.stand_in = json.into())
    }

    pub(super) fn last(mut self, change: impl FnOnce(&mut Protected)) -> Self {
        change(self.plan.last_mut().unwrap());
        self
    }

    /// The texts are those of the metadata.
    pub(super) fn of_metadata(mut self) -> Self {
        self.document = Some("metadata".into());
        self
    }

    pub(super) fn accepting(mut self) -> Self {
        self.accept_plaintext = true;
        self
    }

    /// A sealer writes this. It is stored as it is, and opens to the plaintext, unless more is said.
    pub(super) fn seals(self, plaintext: &str) -> Self {
        self.seals_bytes(plaintext.as_bytes())
    }

    pub(super) fn seals_bytes(mut self, plaintext: &[u8]) -> Self {
        self.plaintext = Some(plaintext.to_vec().into());
        self.sealed = Some(self.seal().into());
        self.stored = self.sealed.clone().unwrap();
        self.opened = self.plaintext.clone();
        self.redacted = Some(Vec::new());
        self
    }

    /// No sealer with this plan and these keys writes what is stored.
    pub(super) fn read_only(mut self) -> Self {
        (self.salt, self.plaintext, self.sealed) = (None, None, None);
        self
    }

    /// A reader meets this. It opens to itself, unless more is said.
    pub(super) fn stored(self, payload: &str) -> Self {
        self.stored_bytes(payload.as_bytes())
    }

    pub(super) fn stored_bytes(mut self, payload: &[u8]) -> Self {
        self.stored = payload.to_vec().into();
        self.opened = Some(self.stored.clone());
        self.redacted = Some(Vec::new());
        self.read_only()
    }

    pub(super) fn stored_as(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.stored = Bytes::Text(change(&self.text()));
        self
    }

    pub(super) fn header_changed(self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.stored_as(|payload| {
            let old = member(payload, "$seal");
            let mut header = bytes_of_token(&old).unwrap();
            change(&mut header);
            payload.replace(&old, &token(&header))
        })
    }

    pub(super) fn with(mut self, label: &str, status: Status) -> Self {
        self.key_mut(label).status = status;
        self
    }

    pub(super) fn secret(mut self, label: &str, other: &str) -> Self {
        self.key_mut(label).secret = hex_of(&secret(other));
        self
    }

    pub(super) fn opens(mut self, opened: &str, redacted: &[&str]) -> Self {
        self.opened = Some(Bytes::Text(opened.into()));
        self.redacted = Some(redacted.iter().map(|place| (*place).to_owned()).collect());
        self
    }

    pub(super) fn tampered(self, check: &str) -> Self {
        self.fails("Tampered", check)
    }

    pub(super) fn fails(mut self, error: &str, detail: &str) -> Self {
        (self.opened, self.redacted) = (None, None);
        (self.error, self.detail) = (Some(error.into()), Some(detail.into()));
        self.read_only()
    }

    /// The stored payload.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.stored.bytes()).unwrap()
    }

    /// A header for this event, with the right tag and commitments, whatever it says.
    pub(super) fn header(
        &self,
        mode: Mode,
        keys: &[&str],
        entries: &[(u16, Kind, &str)],
    ) -> (Vec<u8>, Vec<EventKeyOf>) {
        self.header_by(mode, INTEGRITY, keys, entries)
    }

    pub(super) fn header_by(
        &self,
        mode: Mode,
        integrity: &str,
        keys: &[&str],
        entries: &[(u16, Kind, &str)],
    ) -> (Vec<u8>, Vec<EventKeyOf>) {
        let key = |label: &str| self.keys.iter().find(|key| key.key_id == id_of(label)).unwrap();
        let ids: Vec<_> = keys.iter().map(|label| key(label).id()).collect();
        let listed = entries.iter().map(|(key, kind, pointer)| Entry { key: *key, void: *kind == Kind::Void, pointer });
        let listed: Vec<_> = listed.collect();
        let mut header = Core {
            whole: mode == Mode::Whole,
            salt: salt(&self.name),
            integrity_key: key(integrity).id(),
            keys: &ids,
            entries: &listed,
        }
        .bytes();
        let transcript = Transcript::of(&self.namespace(), &self.aggregate(), &self.event(&[]), &header);
        header.extend_from_slice(&transcript.header_tag(&key(integrity).bytes()).unwrap());
        let mut event_keys = Vec::new();
        for (index, label) in (0_u16..).zip(keys) {
            let event_key = transcript.event_key(&key(label).bytes(), index).unwrap();
            if entries.iter().any(|(key, kind, _)| *key == index && *kind == Kind::Sealed) {
                header.extend_from_slice(event_key.commitment());
            }
            let info = [&b"eventseal/v1/seal"[..], transcript.as_bytes(), &index.to_be_bytes()].concat();
            let mut enc = [0; 32];
            Hkdf::<Sha256>::from_prk(&bytes_of(&key(label).secret)).unwrap().expand(&info, &mut enc).unwrap();
            event_keys.push(EventKeyOf { event_key, enc });
        }
        (header, event_keys)
    }

    pub(super) fn key_mut(&mut self, label: &str) -> &mut Key {
        self.keys.iter_mut().find(|key| key.key_id == id_of(label)).unwrap()
    }
}

/// An event key of the engine, and its encryption key for what the engine does not write.
pub(super) struct EventKeyOf {
    event_key: EventKey,
    enc: [u8; 32],
}

impl EventKeyOf {
    pub(super) fn token(&self, index: u16, pointer: &str, value: &[u8]) -> String {
        token(&self.event_key.seal(index, pointer, value).unwrap())
    }

    pub(super) fn encrypt(&self, index: u8, pointer: &str, padded: &[u8]) -> Vec<u8> {
        let mut nonce = Nonce::default();
        nonce[11] = index;
        let mut sealed = padded.to_vec();
        let cipher = Aes256Gcm::new_from_slice(&self.enc).unwrap();
        let tag = cipher.encrypt_inout_detached(&nonce, pointer.as_bytes(), sealed.as_mut_slice().into()).unwrap();
        sealed.extend_from_slice(&tag);
        sealed
    }
}

pub(super) fn key(label: &str, kind: &str, id: &str) -> Key {
    Key {
        key_id: id_of(label),
        scope_kind: kind.into(),
        scope_id: id.into(),
        status: Status::Live,
        secret: hex_of(&secret(label)),
    }
}

/// A member of the root, as text.
pub(super) fn member(payload: &str, name: &str) -> String {
    let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
    payload[name].to_string()
}

// Everything that is random in real events comes from the case's name here.

pub(super) fn id_of(label: &str) -> String {
    uuid::Builder::from_random_bytes(digest("id", label)).into_uuid().to_string()
}

pub(super) fn with_bit(id: &str, byte: usize, bit: u8) -> String {
    let mut bytes = parse(id).into_bytes();
    bytes[byte] ^= bit;
    uuid::Uuid::from_bytes(bytes).to_string()
}

pub(super) fn salt(label: &str) -> [u8; 16] {
    digest("salt", label)
}

pub(super) fn secret(label: &str) -> [u8; 32] {
    digest("secret", label)
}

pub(super) fn digest<const N: usize>(what: &str, label: &str) -> [u8; N] {
    *Sha256::digest(format!("eventseal test vectors: {what} {label}")).first_chunk().unwrap()
}
