//! The vectors of snapshots, through the engine.

use super::case::{Bytes, Key, Status, bytes_of, hex_of, parse};
use super::path;
use eventseal::internals::format::{SnapshotPlace, State};
use eventseal::keys::KeyId;
use eventseal::snapshots::Discarded;
use eventseal::{AggregateRef, AggregateVersion, KeyScope, Namespace, aggregate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A vector file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshots {
    pub(super) about: String,
    pub(super) format: u8,
    pub(super) snapshots: Vec<Snapshot>,
}

/// A stored snapshot, and what a reader makes of it: `opened`, or `error` and `detail`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) aggregate_type: String,
    pub(super) aggregate_id: String,
    pub(super) aggregate_version: i64,
    pub(super) event_id: String,
    pub(super) state: String,
    pub(super) fingerprint: String,
    pub(super) keys: Vec<Key>,
    /// With `under`, `destroyed`, `plaintext` and `sealed`: what a sealer writes, if a sealer can write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    /// The ids of the keys that seal it, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) under: Option<Vec<String>>,
    /// The ids of the keys whose data is redacted in it, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destroyed: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plaintext: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<String>,
    /// The bytes that a reader gets.
    pub(super) stored: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl Snapshot {
    pub(super) fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_str()).unwrap()
    }

    fn aggregate(&self) -> AggregateRef {
        aggregate(self.aggregate_type.as_str(), self.aggregate_id.as_str())
    }

    /// Calls `with` with the place that the snapshot is bound to.
    pub(super) fn at<T>(&self, with: impl FnOnce(&SnapshotPlace<'_>) -> T) -> T {
        let fingerprint = bytes_of(&self.fingerprint).try_into().unwrap();
        with(&SnapshotPlace {
            aggregate: &self.aggregate(),
            version: AggregateVersion::try_from(self.aggregate_version).unwrap(),
            last_event: parse(&self.event_id),
            state: &self.state,
            fingerprint: &fingerprint,
        })
    }

    fn open(&self, sealed: &[u8], keys: &[(KeyId, KeyScope, State)]) -> Result<Vec<u8>, Discarded> {
        self.at(|place| place.open(&self.namespace(), sealed, keys)).unwrap()
    }

    fn open_stored(&self) -> Result<Vec<u8>, Discarded> {
        let rows = self.keys.iter().filter_map(|key| Some((key.id(), key.scope(), key.state()?)));
        self.open(&bytes_of(&self.stored), &rows.collect::<Vec<_>>())
    }

    /// What opens while every key is as it was when this was sealed.
    fn open_sealed(&self) -> Result<Vec<u8>, Discarded> {
        let destroyed = self.destroyed.as_ref().unwrap();
        let rows = self.keys.iter().map(|key| {
            let is_destroyed = destroyed.contains(&key.key_id);
            (key.id(), key.scope(), if is_destroyed { State::Shredded } else { State::Live(key.bytes()) })
        });
        self.open(&bytes_of(self.sealed.as_ref().unwrap()), &rows.collect::<Vec<_>>())
    }

    /// What the engine makes of the plaintext.
    pub(super) fn seal(&self) -> String {
        let key = |id: &String| self.keys.iter().find(|key| key.key_id == *id).unwrap();
        let under: Vec<_> = self.under.iter().flatten().map(|id| (key(id).id(), key(id).bytes())).collect();
        let destroyed: Vec<_> = self.destroyed.iter().flatten().map(|id| key(id).id()).collect();
        let integrity = self.keys.iter().find(|key| key.scope() == KeyScope::integrity()).unwrap();
        let salt = bytes_of(self.salt.as_ref().unwrap()).try_into().unwrap();
        let plaintext = self.plaintext.as_ref().unwrap().bytes();
        let of_integrity = (integrity.id(), &integrity.bytes());
        let sealed =
            self.at(|place| place.seal(&self.namespace(), &plaintext, &under, &destroyed, of_integrity, &salt));
        hex_of(&sealed.unwrap())
    }
}

/// The name that `docs/format.md` gives to each problem of a snapshot's seal that does not hold.
const CHECKS: [(&str, &str); 6] = [
    ("the header is malformed", "header-layout"),
    ("the ciphertext is malformed", "ciphertext-shape"),
    ("the header's tag is not authentic", "tag"),
    ("the header names an integrity key as a data key", "reserved-key"),
    ("the header is not authentic", "commitment"),
    ("the ciphertext is not authentic", "ciphertext"),
];

fn kind_of(discarded: &Discarded) -> (String, String) {
    let (kind, detail) = match discarded {
        Discarded::Altered { problem } => {
            ("Tampered", CHECKS.iter().find(|(text, _)| text == problem).unwrap().1.to_owned())
        }
        Discarded::Unsupported { what, .. } => ("Unsupported", (*what).to_owned()),
        Discarded::KeyChanged { key_id } => ("KeyChanged", key_id.to_string()),
        other => panic!("no reader of a stored snapshot fails like this: {other}"),
    };
    (kind.to_owned(), detail)
}

fn read(file: &str) -> Vec<Snapshot> {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let vectors: Snapshots = serde_json::from_str(&text).unwrap();
    assert_eq!((vectors.format, vectors.snapshots.is_empty()), (1, false), "{file}");
    vectors.snapshots
}

#[test]
fn i1_the_pass_vectors_of_snapshots_seal_and_open_to_their_bytes() {
    for snapshot in read("v1_snapshot_pass.json") {
        let name = &snapshot.name;
        if let Some(sealed) = &snapshot.sealed {
            assert_eq!(snapshot.seal(), *sealed, "{name}: sealed");
            let opened = snapshot.open_sealed().unwrap();
            assert_eq!(Some(Bytes::from(opened)), snapshot.plaintext, "{name}: sealed and opened again");
        }
        let opened = snapshot.open_stored().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(Some(Bytes::from(opened)), snapshot.opened, "{name}: opened");
        assert!(snapshot.error.is_none(), "{name}");
    }
}

#[test]
fn i3_the_fail_vectors_of_snapshots_fail_for_their_reasons() {
    let mut checks = BTreeSet::new();
    for snapshot in read("v1_snapshot_fail.json") {
        let name = &snapshot.name;
        let Err(discarded) = snapshot.open_stored() else { panic!("{name}: it opened") };
        let (error, detail) = kind_of(&discarded);
        assert_eq!((Some(&error), Some(&detail)), (snapshot.error.as_ref(), snapshot.detail.as_ref()), "{name}");
        checks.insert(detail);
    }
    for (_, check) in CHECKS {
        assert!(checks.contains(check), "no vector fails for {check}");
    }
}

/// I5: whichever of its keys is shredded, nothing of a snapshot opens.
#[test]
fn i5_every_key_of_a_snapshot_is_needed() {
    for snapshot in read("v1_snapshot_pass.json") {
        for id in snapshot.under.iter().flatten() {
            for status in [Status::Shredded, Status::Disabled, Status::Missing] {
                let mut without = snapshot.clone();
                without.keys.iter_mut().find(|key| key.key_id == *id).unwrap().status = status;
                let refused = without.open_stored();
                assert!(matches!(refused, Err(Discarded::KeyChanged { key_id }) if key_id.to_string() == *id));
            }
        }
    }
}
