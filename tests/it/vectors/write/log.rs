//! Copies of the shred log. They are put together here, without the engine: what it writes and reads is held against
//! them.

use super::making::{digest, id_of, salt, secret};
use crate::vectors::case::{hex_of, parse};
use crate::vectors::log::{LogCase, LogVectors, Parts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::internals::format::wrap;
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const MASTER: &str = "2026-11";

fn hash(items: &[&[u8]]) -> [u8; 32] {
    let mut text = Vec::new();
    for item in items {
        text.extend_from_slice(&u32::try_from(item.len()).unwrap().to_be_bytes());
        text.extend_from_slice(item);
    }
    Sha256::digest(&text).into()
}

fn number(value: &Value) -> [u8; 8] {
    value.as_i64().unwrap().to_be_bytes()
}

fn text(value: &Value) -> &[u8] {
    value.as_str().unwrap().as_bytes()
}

fn id(value: &Value) -> Vec<u8> {
    parse(value.as_str().unwrap()).as_bytes().to_vec()
}

fn present(value: &Value, bytes: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    if value.is_null() { Vec::new() } else { [vec![1], bytes(value)].concat() }
}

/// An integrity key, by its label.
fn log_mac(key: &str, label: &[u8], over: &[u8; 32]) -> [u8; 32] {
    let mut log_key = [0; 32];
    Hkdf::<Sha256>::from_prk(&secret(key)).unwrap().expand(b"eventseal/v1/log", &mut log_key).unwrap();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&log_key).unwrap();
    mac.update(label);
    mac.update(over);
    mac.finalize().into_bytes().into()
}

/// A copy that grows line by line.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) lines: Vec<Value>,
    entries: Vec<Parts>,
    namespace: String,
    /// The labels of the integrity keys. The last one is for new entries.
    keys: Vec<&'static str>,
    end: (u64, [u8; 32]),
    scopes: BTreeMap<(String, String), (u64, Vec<u8>)>,
}

impl Copy {
    /// With a line of keys.
    pub(super) fn new() -> Self {
        let namespace = "shop-test".to_owned();
        let (keys, end, scopes) = (vec!["log key 1"], (0, [0; 32]), BTreeMap::new());
        let mut copy = Self { lines: Vec::new(), entries: Vec::new(), namespace, keys, end, scopes };
        copy.line_of_keys();
        copy
    }

    fn copied(&self) -> Value {
        let kek_id = id_of("log kek");
        let keys = self.keys.iter().zip(1_u32..).map(|(key, version)| {
            let key_id = id_of(key);
            let number = version.to_be_bytes();
            let (of_key, of_kek) = (parse(&key_id), parse(&kek_id));
            let items: [&[u8]; 7] = [
                b"eventseal/v1/dek",
                self.namespace.as_bytes(),
                of_key.as_bytes(),
                b"$eventseal",
                b"integrity",
                &number,
                of_kek.as_bytes(),
            ];
            let wrapped = wrap(&secret("log kek"), &items, &salt(key), &secret(key)).unwrap();
            json!({
                "key_id": key_id,
                "version": version,
                "kek_id": kek_id,
                "wrapped_key": STANDARD.encode(wrapped),
                "created_at": 1_790_000_000_000_000_i64 + i64::from(version),
            })
        });
        let of_kek = parse(&kek_id);
        let items: [&[u8]; 4] = [b"eventseal/v1/kek", self.namespace.as_bytes(), of_kek.as_bytes(), MASTER.as_bytes()];
        let wrapped = wrap(&secret("log master"), &items, &salt("log kek"), &secret("log kek")).unwrap();
        let kek = json!({
            "kek_id": kek_id,
            "partition": "default",
            "provider": "keyring",
            "master_key_id": MASTER,
            "wrapped_kek": STANDARD.encode(wrapped),
            "created_at": 1_790_000_000_000_000_i64,
        });
        json!({ "integrity_keys": keys.collect::<Vec<_>>(), "keks": [kek] })
    }

    pub(super) fn line_of_keys(&mut self) {
        let copied = self.copied();
        self.lines.push(json!({
            "shred_log": 1,
            "namespace": self.namespace,
            "seq": self.end.0,
            "hash": hex_of(&self.end.1),
            "keys": digest_of_keys(&copied),
            "copied_keys": copied,
        }));
    }

    /// From here on, there is a newer integrity key.
    pub(super) fn rotate(&mut self) {
        self.keys.push("log key 2");
        self.line_of_keys();
    }

    /// An entry. `more` has the members that are not as usual; with `"mac": null` it has no MAC.
    pub(super) fn entry(&mut self, (kind, scope): (&str, &str), action: &str, state: &str, more: Value) -> &mut Self {
        let key = *self.keys.last().unwrap();
        let of_scope = self.scopes.entry((kind.to_owned(), scope.to_owned())).or_default();
        let seq = of_scope.0 + 1;
        let mut entry = json!({
            "entry_id": id_of(&format!("entry {kind} {scope} {seq}")),
            "kind": kind,
            "id": scope,
            "scope_seq": seq,
            "at": 1_795_000_000_000_000_i64 + i64::try_from(self.end.0).unwrap() * 1_000_001,
            "action": action,
            "state": state,
            "generation": 1,
            "keys": [],
            "until": null,
            "about": null,
            "reason": format!("request {seq}"),
            "actor": "clerk 7",
            "mac_key_id": id_of(key),
        });
        let has_mac = more.get("mac").is_none();
        for (name, value) in more.as_object().unwrap() {
            entry[name] = value.clone();
        }
        if !has_mac {
            entry["mac_key_id"] = Value::Null;
        }
        let transcript = transcript(&self.namespace, &entry, &of_scope.1);
        let mac = has_mac.then(|| log_mac(key, b"eventseal/v1/entry", &transcript));
        entry["mac"] = mac.map_or(Value::Null, |mac| hex_of(&mac).into());
        let mac = mac.map_or(Vec::new(), |mac| mac.to_vec());
        let digest = hash(&[b"eventseal/v1/entry-digest", &transcript, &mac]);
        *of_scope = (seq, digest.to_vec());
        self.entries.push(Parts { transcript: hex_of(&transcript), digest: hex_of(&digest) });
        let (number, before) = (self.end.0 + 1, self.end.1);
        let hash = hash(&[b"eventseal/v1/log", self.namespace.as_bytes(), &number.to_be_bytes(), &before, &digest]);
        self.end = (number, hash);
        self.lines.push(json!({
            "shred_log": 1,
            "namespace": self.namespace,
            "seq": number,
            "hash": hex_of(&hash),
            "keys": digest_of_keys(&self.copied()),
            "previous_hash": hex_of(&before),
            "mac_key_id": id_of(key),
            "mac": hex_of(&log_mac(key, b"eventseal/v1/log", &hash)),
            "entry": entry,
        }));
        self
    }

    fn case(&self, name: &str) -> LogCase {
        LogCase {
            name: name.into(),
            namespace: "shop-test".into(),
            master_key_id: MASTER.into(),
            master_key: hex_of(&secret("log master")),
            lines: self.lines.iter().map(Value::to_string).collect(),
            seq: None,
            hash: None,
            entries: None,
            line: None,
            error: None,
        }
    }

    fn holds(&self, name: &str) -> LogCase {
        let (seq, hash) = (Some(self.end.0), Some(hex_of(&self.end.1)));
        LogCase { seq, hash, entries: Some(self.entries.clone()), ..self.case(name) }
    }

    /// With something done to it, so that this line is refused.
    fn refused(&self, name: &str, (line, error): (usize, &str), harm: impl FnOnce(&mut Self)) -> LogCase {
        let mut copy = self.clone();
        harm(&mut copy);
        LogCase { line: Some(line), error: Some(error.into()), ..copy.case(name) }
    }
}

fn transcript(namespace: &str, entry: &Value, previous: &[u8]) -> [u8; 32] {
    let keys: Vec<u8> = entry["keys"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|key| [id(&key[0]), number(&key[1]).to_vec(), id(&key[2]), number(&key[3]).to_vec()].concat())
        .collect();
    hash(&[
        b"eventseal/v1/entry",
        namespace.as_bytes(),
        &id(&entry["entry_id"]),
        text(&entry["kind"]),
        text(&entry["id"]),
        &number(&entry["scope_seq"]),
        &number(&entry["at"]),
        text(&entry["action"]),
        text(&entry["state"]),
        &number(&entry["generation"]),
        &keys,
        &present(&entry["until"], |until| number(until).to_vec()),
        &present(&entry["about"], id),
        text(&entry["reason"]),
        &present(&entry["actor"], |actor| text(actor).to_vec()),
        &present(&entry["mac_key_id"], id),
        previous,
    ])
}

fn digest_of_keys(copied: &Value) -> String {
    let list = |name: &str| copied[name].as_array().unwrap().clone();
    let base64 = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let mut items: Vec<Vec<u8>> = vec![b"eventseal/v1/copied-keys".to_vec()];
    items.push((list("integrity_keys").len() as u64).to_be_bytes().to_vec());
    for key in list("integrity_keys") {
        items.extend([id(&key["key_id"]), number(&key["version"]).to_vec(), id(&key["kek_id"])]);
        items.extend([base64(&key["wrapped_key"]), number(&key["created_at"]).to_vec()]);
    }
    for kek in list("keks") {
        items.extend([id(&kek["kek_id"]), text(&kek["partition"]).to_vec(), text(&kek["provider"]).to_vec()]);
        items.extend([text(&kek["master_key_id"]).to_vec(), base64(&kek["wrapped_kek"])]);
        items.push(number(&kek["created_at"]).to_vec());
    }
    hex_of(&hash(&items.iter().map(Vec::as_slice).collect::<Vec<_>>())[..16])
}

const ADA: (&str, &str) = ("Customer", "cust_42");
const GUEST: (&str, &str) = ("Guest", "名前/2");
const LOG: (&str, &str) = ("$eventseal", "integrity");

fn destroyed(label: &str, version: u32) -> Value {
    json!([id_of(label), version, id_of("log kek"), 1_794_000_000_000_000_i64 + i64::from(version)])
}

/// Each action, of two scopes and of the log itself.
fn every_action() -> Copy {
    let mut copy = Copy::new();
    let until = 1_900_000_000_000_000_i64;
    copy.entry(ADA, "hold", "live", json!({ "until": until }));
    copy.entry(GUEST, "schedule", "withheld", json!({ "until": until + 1, "actor": null, "reason": "Gäste\n✓" }));
    copy.entry(ADA, "release", "live", json!({ "about": id_of("entry Customer cust_42 1") }));
    copy.entry(GUEST, "cancel", "live", json!({ "about": id_of("entry Guest 名前/2 1") }));
    copy.entry(ADA, "disable", "disabled", json!({}));
    copy.entry(ADA, "enable", "live", json!({}));
    copy.entry(ADA, "shred", "shredded", json!({ "keys": [destroyed("ada 1", 1), destroyed("ada 2", 2)] }));
    copy.entry(LOG, "fork", "live", json!({ "actor": null, "reason": "a copy was replayed" }));
    copy.entry(ADA, "reopen", "live", json!({ "generation": 2, "at": -1 }));
    copy.entry(ADA, "shred", "shredded", json!({ "generation": 2, "keys": [destroyed("ada 3", 3)] }));
    copy
}

/// What was changed before there was a log, and was adopted.
fn carried() -> Copy {
    let mut copy = Copy::new();
    let before = |more: Value| {
        let mut all = json!({ "mac": null, "actor": null });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    copy.entry(GUEST, "hold", "live", json!({}));
    copy.entry(ADA, "shred", "shredded", before(json!({})));
    copy.entry(ADA, "reopen", "live", before(json!({ "generation": 2 })));
    copy.entry(ADA, "adopt", "live", json!({ "generation": 2, "keys": [destroyed("ada 1", 1)] }));
    copy.entry(LOG, "adopt", "live", json!({}));
    copy
}

fn two_keys() -> Copy {
    let mut copy = Copy::new();
    copy.entry(ADA, "disable", "disabled", json!({}));
    copy.rotate();
    copy.entry(ADA, "enable", "live", json!({}));
    copy.entry(GUEST, "shred", "shredded", json!({}));
    copy
}

fn repeated() -> Copy {
    let mut copy = two_keys();
    let again = copy.lines[1].clone();
    copy.lines.insert(2, again.clone());
    copy.lines.insert(4, again);
    copy
}

pub(in super::super) fn pass() -> LogVectors {
    LogVectors {
        about: "eventseal, copies of the shred log, version 1: those that hold. Frozen: see docs/format.md.".into(),
        format: 1,
        logs: vec![
            Copy::new().holds("no-entries"),
            every_action().holds("every-action"),
            carried().holds("entries-from-before-the-log"),
            two_keys().holds("a-second-integrity-key"),
            repeated().holds("lines-that-come-again"),
        ],
    }
}

/// Changes of one member of a line, counted from 1.
fn set(line: usize, pointer: &'static str, value: Value) -> impl FnOnce(&mut Copy) {
    move |copy| *copy.lines[line - 1].pointer_mut(pointer).unwrap() = value
}

fn altered_entries() -> Vec<LogCase> {
    let copy = every_action();
    // The line of the shred, which has every kind of member but two.
    let altered = |name: &str, member: &'static str, value: Value| {
        copy.refused(&format!("entry-with-another-{name}"), (8, "entry-mac"), set(8, member, value))
    };
    let key = |at: usize, value: Value| {
        let mut keys = json!([destroyed("ada 1", 1), destroyed("ada 2", 2)]);
        keys[0][at] = value;
        keys
    };
    vec![
        altered("id", "/entry/entry_id", id_of("another").into()),
        altered("time", "/entry/at", 1.into()),
        altered("action", "/entry/action", "reopen".into()),
        altered("state", "/entry/state", "live".into()),
        altered("generation", "/entry/generation", 2.into()),
        altered("key", "/entry/keys", key(0, id_of("ada 9").into())),
        altered("version-of-a-key", "/entry/keys", key(1, 3.into())),
        altered("kek-of-a-key", "/entry/keys", key(2, id_of("another kek").into())),
        altered("time-of-a-key", "/entry/keys", key(3, 1.into())),
        altered("order-of-keys", "/entry/keys", json!([destroyed("ada 2", 2), destroyed("ada 1", 1)])),
        altered("list-of-keys", "/entry/keys", json!([])),
        altered("until", "/entry/until", 1.into()),
        altered("about", "/entry/about", id_of("another").into()),
        altered("reason", "/entry/reason", "another".into()),
        altered("actor", "/entry/actor", "clerk 8".into()),
        altered("lack-of-an-actor", "/entry/actor", Value::Null),
        altered("mac", "/entry/mac", hex_of(&digest::<32>("mac", "any")).into()),
        copy.refused("entry-without-until", (2, "entry-mac"), set(2, "/entry/until", Value::Null)),
        copy.refused("entry-without-about", (4, "entry-mac"), set(4, "/entry/about", Value::Null)),
        copy.refused("entry-of-another-kind", (2, "entry-mac"), set(2, "/entry/kind", "Supplier".into())),
        copy.refused("entry-of-another-scope", (2, "entry-mac"), set(2, "/entry/id", "cust_43".into())),
        copy.refused("entry-with-another-number", (8, "entry-number"), set(8, "/entry/scope_seq", 6.into())),
        copy.refused("entry-under-another-key", (8, "key"), set(8, "/entry/mac_key_id", id_of("another").into())),
        copy.refused("entry-without-its-mac", (8, "no-mac"), |copy| {
            set(8, "/entry/mac", Value::Null)(copy);
            set(8, "/entry/mac_key_id", Value::Null)(copy);
        }),
        two_keys().refused("entry-under-the-other-key", (4, "entry-mac"), |copy| {
            set(4, "/entry/mac_key_id", id_of("log key 1").into())(copy);
        }),
        carried().refused("entry-from-before-the-log-altered", (3, "hash"), set(3, "/entry/reason", "x".into())),
        carried().refused("hold-without-a-mac", (3, "no-mac"), set(3, "/entry/action", "hold".into())),
        carried().refused("keys-without-a-mac", (3, "no-mac"), set(3, "/entry/keys", json!([destroyed("ada 1", 1)]))),
    ]
}

fn altered_rows() -> Vec<LogCase> {
    let copy = every_action();
    let other = || Value::from(hex_of(&digest::<32>("hash", "any")));
    vec![
        copy.refused("row-with-another-number", (5, "row-number"), set(5, "/seq", 9.into())),
        copy.refused("row-with-another-hash", (5, "hash"), set(5, "/hash", other())),
        copy.refused("row-with-another-hash-before", (5, "previous-hash"), set(5, "/previous_hash", other())),
        copy.refused("row-with-another-mac", (5, "row-mac"), set(5, "/mac", other())),
        copy.refused("row-under-another-key", (5, "key"), set(5, "/mac_key_id", id_of("another").into())),
        two_keys().refused("row-under-the-other-key", (4, "row-mac"), |copy| {
            set(4, "/mac_key_id", id_of("log key 1").into())(copy);
        }),
        copy.refused("first-row-after-something", (2, "previous-hash"), set(2, "/previous_hash", other())),
        copy.refused("rows-with-each-others-entries", (2, "hash"), |copy| {
            let (first, second) = (copy.lines[1]["entry"].clone(), copy.lines[2]["entry"].clone());
            copy.lines[1]["entry"] = second;
            copy.lines[2]["entry"] = first;
        }),
    ]
}

fn altered_lines() -> Vec<LogCase> {
    let copy = every_action();
    let mut torn = copy.refused("line-that-is-no-json", (4, "json"), |_| {});
    torn.lines[3].truncate(40);
    let mut elsewhere = copy.refused("copy-of-another-namespace", (1, "namespace"), |_| {});
    elsewhere.namespace = "shop-staging".into();
    let mut renamed = copy.refused("copy-that-says-another-namespace", (2, "key"), |copy| {
        for line in &mut copy.lines {
            line["namespace"] = "shop-staging".into();
        }
    });
    renamed.namespace = "shop-staging".into();
    let mut unknown = copy.refused("another-master-key", (2, "key"), |_| {});
    unknown.master_key = hex_of(&secret("another master"));
    let without = |name: &str, line: usize, member: &'static str| {
        copy.refused(name, (line, "member"), move |copy| {
            copy.lines[line - 1].as_object_mut().unwrap().remove(member);
        })
    };
    vec![
        torn,
        elsewhere,
        renamed,
        unknown,
        copy.refused("line-of-another-namespace", (4, "namespace"), set(4, "/namespace", "shop-staging".into())),
        copy.refused("line-of-a-newer-format", (4, "format"), set(4, "/shred_log", 2.into())),
        without("line-without-a-hash", 4, "hash"),
        without("line-without-an-entry", 4, "entry"),
        without("line-without-the-name-of-keys", 4, "keys"),
        copy.refused("line-with-a-short-hash", (4, "member"), set(4, "/hash", "00".into())),
        copy.refused("line-with-a-number-as-text", (4, "member"), set(4, "/seq", "3".into())),
        copy.refused("entry-of-an-unknown-action", (4, "member"), set(4, "/entry/action", "forget".into())),
        copy.refused("line-that-was-dropped", (2, "row-number"), |copy| drop(copy.lines.remove(1))),
        copy.refused("line-of-a-scope-of-its-own-that-was-dropped", (9, "row-number"), |copy| {
            drop(copy.lines.remove(8));
        }),
        copy.refused("lines-that-were-exchanged", (2, "row-number"), |copy| copy.lines.swap(1, 2)),
        copy.refused("line-that-comes-again-altered", (4, "repeated"), |copy| {
            let mut again = copy.lines[1].clone();
            again["entry"]["reason"] = "another".into();
            copy.lines.insert(3, again);
        }),
        two_keys().refused("keys-that-were-moved", (2, "place"), |copy| copy.lines.swap(1, 2)),
        two_keys().refused("keys-with-another-digest", (3, "keys"), set(3, "/keys", "00".repeat(16).into())),
        two_keys().refused("keys-with-another-version", (1, "keys"), {
            set(1, "/copied_keys/integrity_keys/0/version", 2.into())
        }),
        two_keys().refused("keys-that-were-dropped", (3, "key"), |copy| drop(copy.lines.remove(2))),
        two_keys().refused("keys-that-were-dropped-altogether", (1, "key"), |copy| {
            copy.lines.retain(|line| line.get("copied_keys").is_none());
        }),
    ]
}

pub(in super::super) fn fail() -> LogVectors {
    LogVectors {
        about: "eventseal, copies of the shred log, version 1: those that must be refused. Frozen: see docs/format.md."
            .into(),
        format: 1,
        logs: [altered_entries(), altered_rows(), altered_lines()].concat(),
    }
}
