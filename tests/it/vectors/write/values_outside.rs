//! Values outside of events: part 3 of the format.

use super::making::{CUSTOMER, INTEGRITY, ORDER, id_of, key, salt};
use crate::vectors::case::{Bytes, Status, hex_of};
use crate::vectors::value::{Value, Values};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use eventseal::internals::format::Transcript;
use eventseal::values::SealedValue;
use hkdf::Hkdf;
use sha2::Sha256;

/// The length of the core, and of the whole header.
const CORE: usize = 61;
const HEADER: usize = 109;

pub(in crate::vectors) fn pass() -> Values {
    let about = "eventseal, sealed values of format version 1: values that open. Frozen: see docs/format.md.".into();
    Values { about, format: 1, values: [sealed(), read()].concat() }
}

pub(in crate::vectors) fn fail() -> Values {
    let about = "eventseal, sealed values of format version 1: values that must not open. Frozen: see docs/format.md.";
    let values = [texts(), headers(), moved(), states(), ciphertexts()].concat();
    Values { about: about.into(), format: 1, values }
}

fn email(name: &str) -> Value {
    Value {
        name: name.into(),
        namespace: "shop-test".into(),
        scope_kind: "Customer".into(),
        scope_id: "cust_42".into(),
        context: ["customers", "email", "cust_42"].map(Into::into).to_vec(),
        keys: vec![key(INTEGRITY, "$eventseal", "integrity"), key(CUSTOMER, "Customer", "cust_42")],
        salt: Some(hex_of(&salt(name))),
        pad: Some(32),
        plaintext: None,
        sealed: None,
        stored: String::new(),
        opened: None,
        redacted: None,
        error: None,
        detail: None,
    }
    .seals(b"ada@example.org")
}

impl Value {
    fn seals(mut self, plaintext: &[u8]) -> Self {
        self.plaintext = Some(Bytes::from(plaintext.to_vec()));
        self.stored = self.seal();
        (self.sealed, self.opened) = (Some(self.stored.clone()), self.plaintext.clone());
        self.redacted = Some(false);
        self
    }

    /// Sealed anew, under this context.
    fn of(mut self, context: &[&str]) -> Self {
        self.context = context.iter().map(|item| (*item).to_owned()).collect();
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        self.seals(&plaintext)
    }

    /// Read under this context.
    fn read_under(mut self, context: &[&str]) -> Self {
        self.context = context.iter().map(|item| (*item).to_owned()).collect();
        self
    }

    fn padded_to(mut self, pad: usize) -> Self {
        self.pad = Some(pad);
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        self.seals(&plaintext)
    }

    fn with(mut self, label: &str, status: Status) -> Self {
        self.keys.iter_mut().find(|key| key.key_id == id_of(label)).unwrap().status = status;
        self
    }

    fn bytes_changed(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = self.stored.parse::<SealedValue>().unwrap().into_bytes();
        change(&mut bytes);
        self.stored = SealedValue::from_bytes(bytes).to_string();
        self
    }

    fn bit(self, byte: usize) -> Self {
        self.bytes_changed(|bytes| bytes[byte] ^= 1)
    }

    fn redacted(mut self) -> Self {
        (self.opened, self.redacted) = (None, Some(true));
        self
    }

    fn read_only(mut self) -> Self {
        (self.salt, self.pad, self.plaintext, self.sealed) = (None, None, None, None);
        self
    }

    fn fails(mut self, error: &str, detail: &str) -> Self {
        (self.opened, self.redacted) = (None, None);
        (self.error, self.detail) = (Some(error.into()), Some(detail.into()));
        self.read_only()
    }

    fn tampered(self, check: &str) -> Self {
        self.fails("Tampered", check)
    }

    /// With another core, and with the tag and the commitment that belong to it, under the keys of these labels.
    fn forged(self, integrity: &str, label: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let secret = |label: &str| self.keys.iter().find(|key| key.key_id == id_of(label)).unwrap().bytes();
        let (of_tag, of_value) = (secret(integrity), secret(label));
        let (namespace, context) = (self.namespace(), self.context());
        self.bytes_changed(|bytes| {
            let mut core = bytes[..CORE].to_vec();
            change(&mut core);
            let transcript = Transcript::of_value(&namespace, &context, &core);
            core.extend_from_slice(&transcript.header_tag(&of_tag).unwrap());
            core.extend_from_slice(transcript.event_key(&of_value, 0).unwrap().commitment());
            core.extend_from_slice(&bytes[HEADER..]);
            *bytes = core;
        })
    }

    /// With this text in the ciphertext, whatever its padding is.
    fn encrypted(self, padded: &[u8]) -> Self {
        let secret = self.keys.iter().find(|key| key.key_id == id_of(CUSTOMER)).unwrap().bytes();
        let (namespace, context) = (self.namespace(), self.context());
        self.bytes_changed(|bytes| {
            let transcript = Transcript::of_value(&namespace, &context, &bytes[..CORE]);
            let info = [&b"eventseal/v1/seal"[..], transcript.as_bytes(), &[0, 0]].concat();
            let (mut enc, mut sealed) = ([0; 32], padded.to_vec());
            Hkdf::<Sha256>::from_prk(&secret).unwrap().expand(&info, &mut enc).unwrap();
            let cipher = Aes256Gcm::new_from_slice(&enc).unwrap();
            let tag = cipher.encrypt_inout_detached(&Nonce::default(), b"", sealed.as_mut_slice().into()).unwrap();
            bytes.truncate(HEADER);
            bytes.extend_from_slice(&sealed);
            bytes.extend_from_slice(&tag);
        })
    }
}

/// What sealers write.
fn sealed() -> Vec<Value> {
    vec![
        email("value-of-a-column"),
        email("value-of-no-bytes").seals(b""),
        email("value-of-31-bytes").seals(&[b'a'; 31]),
        email("value-of-32-bytes").seals(&[b'a'; 32]),
        email("value-of-any-bytes").seals(&(0..=255).collect::<Vec<u8>>()),
        email("value-that-ends-like-padding").seals(&[1, 0x80, 0, 0x80, 0, 0]),
        email("value-with-more-padding").padded_to(128),
        email("value-with-padding-of-96").padded_to(96),
        email("value-of-a-context-of-one-item").of(&["api-key"]),
        email("value-of-a-context-of-16-items").of(&["i"; 16]),
        email("value-of-a-context-with-slashes").of(&["a/b", "c"]),
        email("value-of-a-context-beyond-ascii").of(&["顧客", "名前", "\u{1f600}"]),
    ]
}

/// What readers meet.
fn read() -> Vec<Value> {
    let older = |name: &str, status| {
        let mut value = email(name);
        value.keys.push(key("guest 1", "Customer", "cust_42"));
        value.with(CUSTOMER, status)
    };
    vec![
        email("shredded-value").with(CUSTOMER, Status::Shredded).redacted(),
        email("shredded-value-of-many-bytes").seals(&[7; 100]).with(CUSTOMER, Status::Shredded).redacted(),
        email("shredded-value-whose-ciphertext-was-altered")
            .bit(HEADER)
            .with(CUSTOMER, Status::Shredded)
            .redacted()
            .read_only(),
        older("value-under-an-older-key-of-its-scope", Status::Live),
        older("value-of-a-scope-that-was-reopened", Status::Shredded).redacted(),
        email("live-value-without-integrity-key").with(INTEGRITY, Status::Missing),
        email("live-value-with-a-disabled-integrity-key").with(INTEGRITY, Status::Disabled),
        email("live-value-whose-tag-was-altered").bit(CORE).read_only(),
    ]
}

fn texts() -> Vec<Value> {
    let text = |name: &str, change: &dyn Fn(&str) -> String| {
        let mut value = email(name);
        value.stored = change(&value.stored);
        value.fails("InvalidText", "")
    };
    vec![
        text("text-with-padding", &|text| format!("{text}==")),
        text("text-of-the-other-alphabet", &|text| text.replacen('A', "+", 1)),
        text("text-with-a-line-break", &|text| format!("{text}\n")),
        text("text-whose-last-character-has-stray-bits", &|text| {
            let (rest, last) = text.split_at(text.len() - 1);
            // Four bits of the last character are unused: they are zero in these four.
            rest.to_owned()
                + [("A", "B"), ("Q", "R"), ("g", "h"), ("w", "x")].iter().find(|(of, _)| *of == last).unwrap().1
        }),
    ]
}

fn headers() -> Vec<Value> {
    let core = |name: &str, change: &dyn Fn(&mut Vec<u8>)| email(name).forged(INTEGRITY, CUSTOMER, change);
    vec![
        email("no-bytes").bytes_changed(Vec::clear).tampered("header-layout"),
        email("bytes-that-were-never-sealed")
            .bytes_changed(|bytes| *bytes = b"\x01\x01\x03\x01 and then text".to_vec())
            .tampered("header-layout"),
        email("text-that-was-never-sealed")
            .bytes_changed(|bytes| *bytes = b"ada@example.org".to_vec())
            .fails("Unsupported", "format"),
        email("header-that-is-cut-off").bytes_changed(|bytes| bytes.truncate(HEADER - 1)).tampered("header-layout"),
        core("another-format", &|core| core[0] = 2).fails("Unsupported", "format"),
        core("another-suite", &|core| core[1] = 2).fails("Unsupported", "suite"),
        core("part-of-a-payload", &|core| core[2] = 0).tampered("header-layout"),
        core("part-of-metadata", &|core| core[2] = 1).tampered("header-layout"),
        core("part-of-a-snapshot", &|core| core[2] = 2).tampered("header-layout"),
        core("another-part", &|core| core[2] = 4).fails("Unsupported", "part"),
        core("mode-of-fields", &|core| core[3] = 0).tampered("header-layout"),
        core("another-mode", &|core| core[3] = 2).fails("Unsupported", "mode"),
        core("no-key", &|core| core[37] = 0).tampered("header-layout"),
        core("two-keys", &|core| core[37] = 2).tampered("header-layout"),
        core("no-entry", &|core| core[55] = 0).tampered("header-layout"),
        core("two-entries", &|core| core[55] = 2).tampered("header-layout"),
        core("entry-of-another-key", &|core| core[57] = 1).tampered("header-layout"),
        core("void-entry", &|core| core[58] = 1).tampered("header-layout"),
        core("entry-with-a-pointer", &|core| core[60] = 1).tampered("header-layout"),
        email("another-salt").bit(4).tampered("commitment"),
        email("another-integrity-key-id").bit(20).tampered("commitment"),
        email("another-key-id").bit(38).tampered("tag"),
        email("another-commitment").bit(CORE + 16).tampered("commitment"),
        email("integrity-key-as-data-key")
            .forged(INTEGRITY, INTEGRITY, |core| core.copy_within(20..36, 38))
            .tampered("reserved-key"),
    ]
}

fn moved() -> Vec<Value> {
    let mut elsewhere = email("value-of-another-namespace");
    elsewhere.namespace = "shop-staging".into();
    let other = |name: &str| {
        let mut value = email(name);
        value.keys.push(key(ORDER, "Customer", "cust_43"));
        value.scope_id = "cust_43".into();
        value
    };
    let mut kind = email("value-of-another-kind");
    kind.scope_kind = "Supplier".into();
    let context = |name: &str, of: &[&str], read: &[&str]| email(name).of(of).read_under(read).tampered("commitment");
    vec![
        elsewhere.tampered("commitment"),
        context("value-of-another-row", &["customers", "email", "cust_43"], &["customers", "email", "cust_42"]),
        context("value-of-another-column", &["customers", "phone", "cust_42"], &["customers", "email", "cust_42"]),
        context("items-of-a-context-divided-elsewhere", &["ab", "c"], &["a", "bc"]),
        context("items-of-a-context-joined", &["a", "b"], &["a/b"]),
        context("items-of-a-context-in-another-order", &["a", "b"], &["b", "a"]),
        context("one-item-less", &["a", "b"], &["a"]),
        other("value-of-another-scope").fails("OtherOwner", ""),
        kind.fails("OtherOwner", ""),
        other("shredded-value-of-another-scope").with(CUSTOMER, Status::Shredded).fails("OtherOwner", ""),
        other("disabled-value-of-another-scope").with(CUSTOMER, Status::Disabled).fails("OtherOwner", ""),
        email("shredded-value-of-another-row")
            .of(&["customers", "email", "cust_43"])
            .read_under(&["customers", "email", "cust_42"])
            .with(CUSTOMER, Status::Shredded)
            .tampered("tag"),
    ]
}

fn states() -> Vec<Value> {
    let shredded = |name: &str| email(name).with(CUSTOMER, Status::Shredded);
    let (data, integrity) = (id_of(CUSTOMER), id_of(INTEGRITY));
    let mut stranger = shredded("shredded-value-with-a-tag-of-a-data-key");
    stranger.keys[0].scope_kind = "Customer".into();
    vec![
        email("missing-key").with(CUSTOMER, Status::Missing).fails("MissingKey", &data),
        email("disabled-key").with(CUSTOMER, Status::Disabled).fails("Disabled", "Customer cust_42"),
        shredded("shredded-value-without-integrity-key")
            .with(INTEGRITY, Status::Missing)
            .fails("MissingKey", &integrity),
        shredded("shredded-value-with-a-disabled-integrity-key")
            .with(INTEGRITY, Status::Disabled)
            .fails("Disabled", "$eventseal integrity"),
        shredded("shredded-value-with-a-shredded-integrity-key").with(INTEGRITY, Status::Shredded).tampered("tag"),
        shredded("shredded-value-whose-tag-was-altered").bit(CORE).tampered("tag"),
        shredded("shredded-value-whose-salt-was-altered").bit(4).tampered("tag"),
        email("missing-key-and-an-altered-tag").bit(CORE).with(CUSTOMER, Status::Missing).tampered("tag"),
        email("disabled-key-and-an-altered-tag").bit(CORE).with(CUSTOMER, Status::Disabled).tampered("tag"),
        stranger.tampered("tag"),
    ]
}

fn ciphertexts() -> Vec<Value> {
    let end = |name: &str, length: usize| {
        email(name).bytes_changed(|bytes| bytes.resize(HEADER + length, 0)).tampered("ciphertext-shape")
    };
    let mut zeros_only = vec![1; 32];
    zeros_only[31] = 0x81;
    vec![
        end("no-ciphertext", 0),
        end("ciphertext-of-a-tag-alone", 16),
        end("ciphertext-without-its-last-byte", 47),
        end("ciphertext-and-one-byte", 49),
        email("shredded-ciphertext-of-another-length")
            .bytes_changed(|bytes| bytes.push(0))
            .with(CUSTOMER, Status::Shredded)
            .tampered("ciphertext-shape"),
        email("altered-ciphertext").bit(HEADER).tampered("ciphertext"),
        email("altered-tag-of-the-ciphertext").bit(HEADER + 47).tampered("ciphertext"),
        email("ciphertext-of-another-value")
            .bytes_changed(|bytes| {
                let other = email("value-of-a-column").stored.parse::<SealedValue>().unwrap();
                bytes[HEADER..].copy_from_slice(&other.as_bytes()[HEADER..]);
            })
            .tampered("ciphertext"),
        email("padding-of-zeros-alone").encrypted(&[0; 32]).tampered("ciphertext"),
        email("padding-that-ends-otherwise").encrypted(&zeros_only).tampered("ciphertext"),
    ]
}
