//! The vectors of blind indexes, through the engine.

use super::case::{bytes_of, hex_of};
use super::path;
use eventseal::blind_index::{BlindIndex, Spelling};
use eventseal::error::BlindIndexFault;
use eventseal::internals::format::blind_hash;
use eventseal::{Error, Result};
use serde::{Deserialize, Serialize};

/// A vector file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hashes {
    pub(super) about: String,
    pub(super) format: u8,
    pub(super) hashes: Vec<Hash>,
}

/// A value, and what is stored for it: `spelled` and `hash`, or `error`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hash {
    pub(super) name: String,
    pub(super) index: String,
    pub(super) spelling: String,
    pub(super) bits: u16,
    /// The data key from which the key of the index is derived.
    pub(super) secret: String,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spelled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Hash {
    /// The value as it is hashed, and its hash.
    pub(super) fn make(&self) -> Result<(String, String)> {
        let spelling = match self.spelling.as_str() {
            "exact" => Spelling::Exact,
            "case_folded" => Spelling::CaseFolded,
            "email" => Spelling::Email,
            other => panic!("{other}"),
        };
        let index = BlindIndex::new(self.index.as_str()).spelling(spelling).bits(self.bits);
        let (spelled, hash) = blind_hash(&index, &bytes_of(&self.secret).try_into().unwrap(), &self.value)?;
        Ok((spelled, hex_of(&hash)))
    }
}

fn read(file: &str) -> Vec<Hash> {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let vectors: Hashes = serde_json::from_str(&text).unwrap();
    assert_eq!((vectors.format, vectors.hashes.is_empty()), (1, false), "{file}");
    vectors.hashes
}

#[test]
fn i3_the_pass_vectors_of_blind_indexes_hash_to_what_they_say() {
    for case in read("v1_index_pass.json") {
        let (spelled, hash) = case.make().unwrap();
        assert_eq!((Some(spelled), Some(hash)), (case.spelled, case.hash), "{}", case.name);
        assert!(case.error.is_none(), "{}", case.name);
    }
}

#[test]
fn the_fail_vectors_of_blind_indexes_are_refused() {
    for case in read("v1_index_fail.json") {
        let refused = case.make();
        let is_value = matches!(refused, Err(Error::BlindIndex { fault: BlindIndexFault::InvalidValue { .. }, .. }));
        assert_eq!((is_value, case.error.as_deref()), (true, Some("InvalidValue")), "{}", case.name);
    }
}
