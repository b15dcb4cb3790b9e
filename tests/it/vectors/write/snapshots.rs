//! Snapshots: part 2 of the format.

use super::making::{CUSTOMER, INTEGRITY, ORDER, id_of, key, salt};
use crate::vectors::case::{Bytes, Status, bytes_of, hex_of};
use crate::vectors::snapshot::{Snapshot, Snapshots};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use eventseal::internals::format::Transcript;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

const GUEST: &str = "guest 1";

/// Where things stand in a header with two keys: two sealed, or one sealed and one void.
const CORE: usize = 82;
const TWO: usize = CORE + 16 + 64;

pub(in crate::vectors) fn pass() -> Snapshots {
    let about = "eventseal, snapshots of format version 1: snapshots that open. Frozen: see docs/format.md.".into();
    Snapshots { about, format: 1, snapshots: opening() }
}

pub(in crate::vectors) fn fail() -> Snapshots {
    let about = "eventseal, snapshots of format version 1: snapshots that must not open. Frozen: see docs/format.md.";
    Snapshots { about: about.into(), format: 1, snapshots: [headers(), moved(), states(), ciphertexts()].concat() }
}

/// An order with data of its customer and of its own, and redacted data of a guest.
fn snapshot(name: &str) -> Snapshot {
    let mut keys = vec![key(INTEGRITY, "$eventseal", "integrity"), key(CUSTOMER, "Customer", "cust_42")];
    keys.extend([key(ORDER, "Order", "ord_7"), key(GUEST, "Customer", "cust_43")]);
    keys[3].status = Status::Shredded;
    Snapshot {
        name: name.into(),
        namespace: "shop-test".into(),
        aggregate_type: "Order".into(),
        aggregate_id: "ord_7".into(),
        aggregate_version: 100,
        event_id: id_of("the last event"),
        state: "order".into(),
        fingerprint: hex_of(&Sha256::digest("the code")),
        keys,
        salt: Some(hex_of(&salt(name))),
        under: None,
        destroyed: None,
        plaintext: None,
        sealed: None,
        stored: String::new(),
        opened: None,
        error: None,
        detail: None,
    }
    .under(&[CUSTOMER, ORDER], &[])
    .seals(br#"{"redacted":[],"state":{"name":"Ada","card":"4111"}}"#)
}

impl Snapshot {
    fn under(mut self, sealing: &[&str], destroyed: &[&str]) -> Self {
        self.under = Some(sealing.iter().map(|label| id_of(label)).collect());
        self.destroyed = Some(destroyed.iter().map(|label| id_of(label)).collect());
        self
    }

    fn seals(mut self, plaintext: &[u8]) -> Self {
        self.plaintext = Some(Bytes::from(plaintext.to_vec()));
        self.stored = self.seal();
        (self.sealed, self.opened) = (Some(self.stored.clone()), self.plaintext.clone());
        self
    }

    /// Sealed anew, under these keys.
    fn of(self, sealing: &[&str], destroyed: &[&str]) -> Self {
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        self.under(sealing, destroyed).seals(&plaintext)
    }

    /// Sealed anew, at another place.
    fn placed(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        self.seals(&plaintext)
    }

    /// Read at another place.
    fn read_at(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with(mut self, label: &str, status: Status) -> Self {
        self.keys.iter_mut().find(|key| key.key_id == id_of(label)).unwrap().status = status;
        self
    }

    fn bytes_changed(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = bytes_of(&self.stored);
        change(&mut bytes);
        self.stored = hex_of(&bytes);
        self
    }

    fn bit(self, byte: usize) -> Self {
        self.bytes_changed(|bytes| bytes[byte] ^= 1)
    }

    fn fails(mut self, error: &str, detail: &str) -> Self {
        (self.opened, self.error, self.detail) = (None, Some(error.into()), Some(detail.into()));
        (self.salt, self.under, self.destroyed, self.plaintext, self.sealed) = (None, None, None, None, None);
        self
    }

    fn tampered(self, check: &str) -> Self {
        self.fails("Tampered", check)
    }

    fn secret(&self, label: &str) -> [u8; 32] {
        self.keys.iter().find(|key| key.key_id == id_of(label)).unwrap().bytes()
    }

    /// With another core of two keys, and with the tag and the commitments that belong to it.
    fn forged(self, integrity: &str, labels: [&str; 2], change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let (of_tag, of_keys, namespace) =
            (self.secret(integrity), labels.map(|label| self.secret(label)), self.namespace());
        let mut core = bytes_of(&self.stored)[..CORE].to_vec();
        change(&mut core);
        let transcript = self.at(|place| Transcript::of_snapshot(&namespace, place, &core));
        self.bytes_changed(|bytes| {
            core.extend_from_slice(&transcript.header_tag(&of_tag).unwrap());
            for (index, secret) in (0..).zip(of_keys) {
                core.extend_from_slice(transcript.event_key(&secret, index).unwrap().commitment());
            }
            core.extend_from_slice(&bytes[TWO..]);
            *bytes = core;
        })
    }

    /// With this text in the ciphertext, whatever its padding is. `parts` are the keys that it is sealed under.
    fn encrypted(self, padded: &[u8], parts: &[&str]) -> Self {
        let (namespace, core) = (self.namespace(), bytes_of(&self.stored)[..CORE].to_vec());
        let transcript = *self.at(|place| Transcript::of_snapshot(&namespace, place, &core)).as_bytes();
        let expanded = |secret: &[u8; 32], info: &[&[u8]]| {
            let mut key = [0; 32];
            Hkdf::<Sha256>::from_prk(secret).unwrap().expand_multi_info(info, &mut key).unwrap();
            key
        };
        let mut joined = expanded(&self.secret(INTEGRITY), &[b"eventseal/v1/snapshot", &transcript]).to_vec();
        for label in parts {
            let index = if *label == CUSTOMER { [0, 0] } else { [0, 1] };
            joined.extend(expanded(&self.secret(label), &[b"eventseal/v1/seal", &transcript, &index]));
        }
        let mut enc = [0; 32];
        Hkdf::<Sha256>::new(Some(&transcript), &joined).expand(b"eventseal/v1/snapshot", &mut enc).unwrap();
        self.bytes_changed(|bytes| {
            let mut sealed = padded.to_vec();
            let cipher = Aes256Gcm::new_from_slice(&enc).unwrap();
            let tag = cipher.encrypt_inout_detached(&Nonce::default(), b"", sealed.as_mut_slice().into()).unwrap();
            bytes.truncate(TWO);
            bytes.extend_from_slice(&sealed);
            bytes.extend_from_slice(&tag);
        })
    }
}

fn opening() -> Vec<Snapshot> {
    vec![
        snapshot("snapshot-of-two-owners"),
        snapshot("snapshot-of-one-owner").of(&[CUSTOMER], &[]),
        snapshot("snapshot-of-nobody").of(&[], &[]),
        snapshot("snapshot-with-a-redaction").of(&[ORDER], &[GUEST]),
        snapshot("snapshot-of-redactions-alone").of(&[], &[GUEST]),
        snapshot("snapshot-of-keys-in-another-order").of(&[ORDER, CUSTOMER], &[]),
        snapshot("snapshot-of-no-bytes").seals(b""),
        snapshot("snapshot-of-31-bytes").seals(&[b'a'; 31]),
        snapshot("snapshot-of-32-bytes").seals(&[b'a'; 32]),
        snapshot("snapshot-of-any-bytes").seals(&(0..=255).collect::<Vec<u8>>()),
        snapshot("snapshot-of-the-first-version").placed(|snapshot| snapshot.aggregate_version = 1),
        snapshot("snapshot-of-the-last-version").placed(|snapshot| snapshot.aggregate_version = i64::MAX),
        snapshot("snapshot-of-names-beyond-ascii").placed(|snapshot| {
            (snapshot.aggregate_id, snapshot.state) = ("注文".into(), "\u{1f600}".into());
        }),
        snapshot("snapshot-whose-reader-lacks-other-keys").with(GUEST, Status::Missing),
    ]
}

fn headers() -> Vec<Snapshot> {
    let core = |name: &str, change: &dyn Fn(&mut Vec<u8>)| snapshot(name).forged(INTEGRITY, [CUSTOMER, ORDER], change);
    let layout = |name: &str, change: &dyn Fn(&mut Vec<u8>)| core(name, change).tampered("header-layout");
    vec![
        snapshot("no-bytes").bytes_changed(Vec::clear).tampered("header-layout"),
        snapshot("bytes-that-were-never-sealed")
            .bytes_changed(|bytes| *bytes = b"\x01\x01\x02\x01 and then text".to_vec())
            .tampered("header-layout"),
        snapshot("text-that-was-never-sealed")
            .bytes_changed(|bytes| *bytes = br#"{"redacted":[],"state":{}}"#.to_vec())
            .fails("Unsupported", "format"),
        snapshot("header-that-is-cut-off").bytes_changed(|bytes| bytes.truncate(TWO - 1)).tampered("header-layout"),
        core("another-format", &|core| core[0] = 2).fails("Unsupported", "format"),
        core("another-suite", &|core| core[1] = 2).fails("Unsupported", "suite"),
        layout("part-of-a-payload", &|core| core[2] = 0),
        layout("part-of-metadata", &|core| core[2] = 1),
        core("part-of-a-value", &|core| core[2] = 3).fails("Unsupported", "part"),
        layout("mode-of-fields", &|core| core[3] = 0),
        core("another-mode", &|core| core[3] = 2).fails("Unsupported", "mode"),
        layout("more-keys-than-entries", &|core| core[71] = 1),
        layout("no-entry", &|core| core[71] = 0),
        layout("more-entries-than-keys", &|core| core[71] = 3),
        layout("entries-in-another-order", &|core| (core[73], core[78]) = (1, 0)),
        layout("two-entries-of-one-key", &|core| core[78] = 0),
        layout("entry-of-an-unknown-kind", &|core| core[74] = 2),
        layout("entry-with-a-pointer", &|core| core[76] = 1),
        layout("one-key-twice", &|core| core.copy_within(38..54, 54)),
        layout("more-keys-than-any-header-has", &|core| core[36..38].copy_from_slice(&1_025_u16.to_be_bytes())),
        snapshot("another-salt").bit(4).tampered("tag"),
        snapshot("another-tag").bit(CORE).tampered("tag"),
        snapshot("another-key-id").bit(38).tampered("tag"),
        snapshot("another-kind-of-entry")
            .bytes_changed(|bytes| {
                bytes[74] = 1;
                bytes.drain(CORE + 16..CORE + 48);
            })
            .tampered("tag"),
        snapshot("commitments-in-another-order")
            .bytes_changed(|bytes| bytes[CORE + 16..TWO].rotate_left(32))
            .tampered("commitment"),
        snapshot("another-commitment").bit(CORE + 16).tampered("commitment"),
        snapshot("another-second-commitment").bit(CORE + 48).tampered("commitment"),
        core("integrity-key-as-data-key", &|core| core.copy_within(20..36, 38)).tampered("reserved-key"),
    ]
}

fn moved() -> Vec<Snapshot> {
    let moved = |name: &str, change: &dyn Fn(&mut Snapshot)| snapshot(name).read_at(change).tampered("tag");
    vec![
        moved("snapshot-of-another-namespace", &|snapshot| snapshot.namespace = "shop-staging".into()),
        moved("snapshot-of-another-aggregate-type", &|snapshot| snapshot.aggregate_type = "Cart".into()),
        moved("snapshot-of-another-aggregate", &|snapshot| snapshot.aggregate_id = "ord_8".into()),
        moved("snapshot-of-another-version", &|snapshot| snapshot.aggregate_version = 101),
        moved("snapshot-after-another-event", &|snapshot| snapshot.event_id = id_of("another event")),
        moved("snapshot-of-another-state", &|snapshot| snapshot.state = "orders".into()),
        moved("snapshot-of-other-code", &|snapshot| snapshot.fingerprint = hex_of(&Sha256::digest("other code"))),
        moved("names-divided-elsewhere", &|snapshot| {
            (snapshot.aggregate_type, snapshot.aggregate_id) = ("Ordero".into(), "rd_7".into());
        }),
    ]
}

fn states() -> Vec<Snapshot> {
    let changed = |snapshot: Snapshot, label: &str| snapshot.fails("KeyChanged", &id_of(label));
    let redacted = |name: &str| snapshot(name).of(&[ORDER], &[GUEST]);
    let mut stranger = snapshot("tag-of-a-data-key");
    stranger.keys[0].scope_kind = "Customer".into();
    vec![
        changed(snapshot("first-key-shredded").with(CUSTOMER, Status::Shredded), CUSTOMER),
        changed(snapshot("second-key-shredded").with(ORDER, Status::Shredded), ORDER),
        changed(snapshot("key-disabled").with(ORDER, Status::Disabled), ORDER),
        changed(snapshot("key-missing").with(CUSTOMER, Status::Missing), CUSTOMER),
        changed(redacted("destroyed-key-that-is-live-again").with(GUEST, Status::Live), GUEST),
        changed(redacted("destroyed-key-that-is-disabled").with(GUEST, Status::Disabled), GUEST),
        changed(redacted("destroyed-key-that-is-missing").with(GUEST, Status::Missing), GUEST),
        changed(snapshot("integrity-key-missing").with(INTEGRITY, Status::Missing), INTEGRITY),
        changed(snapshot("integrity-key-disabled").with(INTEGRITY, Status::Disabled), INTEGRITY),
        changed(snapshot("integrity-key-shredded").with(INTEGRITY, Status::Shredded), INTEGRITY),
        snapshot("shredded-key-and-an-altered-tag").bit(CORE).with(ORDER, Status::Shredded).tampered("tag"),
        stranger.tampered("tag"),
    ]
}

fn ciphertexts() -> Vec<Snapshot> {
    let end = |name: &str, length: usize| {
        snapshot(name).bytes_changed(|bytes| bytes.resize(TWO + length, 0)).tampered("ciphertext-shape")
    };
    let (mut text, mut otherwise) = ([0; 32], [1; 32]);
    (text[0], text[1], otherwise[31]) = (b'a', 0x80, 0x81);
    vec![
        end("no-ciphertext", 0),
        end("ciphertext-of-a-tag-alone", 16),
        end("ciphertext-without-its-last-byte", 79),
        end("ciphertext-and-one-byte", 81),
        snapshot("altered-ciphertext").bit(TWO).tampered("ciphertext"),
        snapshot("ciphertext-of-another-snapshot")
            .bytes_changed(|bytes| {
                let other = bytes_of(&snapshot("snapshot-of-two-owners").stored);
                bytes[TWO..].copy_from_slice(&other[TWO..]);
            })
            .tampered("ciphertext"),
        snapshot("ciphertext-under-the-first-key-alone").encrypted(&text, &[CUSTOMER]).tampered("ciphertext"),
        snapshot("ciphertext-under-the-integrity-key-alone").encrypted(&text, &[]).tampered("ciphertext"),
        snapshot("ciphertext-under-keys-in-another-order").encrypted(&text, &[ORDER, CUSTOMER]).tampered("ciphertext"),
        snapshot("padding-of-zeros-alone").encrypted(&[0; 32], &[CUSTOMER, ORDER]).tampered("ciphertext"),
        snapshot("padding-that-ends-otherwise").encrypted(&otherwise, &[CUSTOMER, ORDER]).tampered("ciphertext"),
    ]
}
