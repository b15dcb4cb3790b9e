//! Blind indexes.

use super::making::secret;
use crate::vectors::case::hex_of;
use crate::vectors::index::{Hash, Hashes};

pub(in crate::vectors) fn pass() -> Hashes {
    let about = "eventseal, blind indexes of format version 1: values and their hashes. Frozen: see docs/format.md.";
    Hashes { about: about.into(), format: 1, hashes: [spelled(), truncated(), apart()].concat() }
}

pub(in crate::vectors) fn fail() -> Hashes {
    let about = "eventseal, blind indexes of format version 1: values that are refused. Frozen: see docs/format.md.";
    let refused = [
        ("empty", "exact", ""),
        ("empty-folded", "case_folded", ""),
        ("empty-address", "email", ""),
        ("blank-address", "email", " \t"),
        ("address-without-an-at", "email", "ada"),
        ("address-without-a-local-part", "email", " @example.org"),
        ("address-without-a-domain", "email", "ada@"),
    ];
    let refused =
        refused.map(|(name, spelling, value)| Hash { error: Some("InvalidValue".into()), ..of(name, spelling, value) });
    Hashes { about: about.into(), format: 1, hashes: refused.to_vec() }
}

fn of(name: &str, spelling: &str, value: &str) -> Hash {
    Hash {
        name: name.into(),
        index: "customer-email".into(),
        spelling: spelling.into(),
        bits: 128,
        secret: hex_of(&secret("index")),
        value: value.into(),
        spelled: None,
        hash: None,
        error: None,
    }
}

impl Hash {
    /// Hashed as this is spelled.
    fn spelled(mut self, spelled: &str) -> Self {
        let (made, hash) = self.make().unwrap();
        assert_eq!(made, spelled, "{}", self.name);
        (self.spelled, self.hash) = (Some(made), Some(hash));
        self
    }
}

fn spelled() -> Vec<Hash> {
    vec![
        of("exact", "exact", " Ada ").spelled(" Ada "),
        of("exact-with-any-character", "exact", "a\0\u{1f512}\n").spelled("a\0\u{1f512}\n"),
        of("decomposed", "exact", "e\u{301}").spelled("e\u{301}"),
        of("composed", "exact", "\u{e9}").spelled("\u{e9}"),
        of("folded", "case_folded", "Ada LOVELACE ").spelled("ada lovelace "),
        of("folded-sharp-s", "case_folded", "Stra\u{df}e").spelled("strasse"),
        of("folded-capital-sharp-s", "case_folded", "STRA\u{1e9e}E").spelled("strasse"),
        of("folded-final-sigma", "case_folded", "\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}")
            .spelled("\u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c3}"),
        of("folded-ligature", "case_folded", "\u{fb01}n").spelled("fin"),
        of("folded-i-with-a-dot", "case_folded", "\u{130}").spelled("i\u{307}"),
        of("folded-i-without-a-dot", "case_folded", "\u{131}").spelled("i"),
        of("folded-cherokee", "case_folded", "\u{13a0}\u{ab70}").spelled("\u{ab70}\u{ab70}"),
        of("address", "email", "ada@example.org").spelled("ada@example.org"),
        of("address-in-capitals", "email", " ADA+Shop@Example.ORG\r\n").spelled("ada+shop@example.org"),
        of("address-with-two-ats", "email", "\"a@b\"@example.org").spelled("\"a@b\"@example.org"),
        of("address-behind-a-no-break-space", "email", "\u{a0}ada@example.org\u{3000}").spelled("ada@example.org"),
    ]
}

fn truncated() -> Vec<Hash> {
    let bits = [32, 33, 39, 40, 96, 127, 255, 256];
    let hash = |bits: u16| Hash { bits, ..of(&format!("{bits}-bits"), "email", "ada@example.org") };
    bits.map(|bits| hash(bits).spelled("ada@example.org")).to_vec()
}

/// Where the name of the index ends, and which key it is.
fn apart() -> Vec<Hash> {
    let index = |name: &str, index: &str, value: &str| Hash { index: index.into(), ..of(name, "exact", value) };
    vec![
        index("index-ab-value-c", "ab", "c").spelled("c"),
        index("index-a-value-bc", "a", "bc").spelled("bc"),
        index("index-with-any-character", "\u{e9} \u{1f512}", "c").spelled("c"),
        Hash { secret: hex_of(&secret("another index")), ..index("another-key", "ab", "c") }.spelled("c"),
    ]
}
