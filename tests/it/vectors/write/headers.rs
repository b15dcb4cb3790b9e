//! Seals that were altered, moved, or whose keys are not there for the reader.

use super::making::Kind::{self, Sealed, Void};
use super::making::{
    CUSTOMER, ENTRIES, FIRST_ENTRY, FIRST_KEY, INTEGRITY, INTEGRITY_ID, KEYS, Mode, ORDER, SALT, customer, id_of,
    member, salt, two, with_bit,
};
use crate::vectors::case::Status::{Disabled, Live, Missing, Shredded};
use crate::vectors::case::{Case, hex_of};
use eventseal::internals::format::{Core, Entry, token};
use eventseal::keys::KeyId;

pub(super) fn all() -> Vec<Case> {
    [flipped(), proofs(), layouts(), contexts(), keys()].concat()
}

fn one(name: &str) -> Case {
    customer(name).protect("/name").seals(r#"{"name":"Ada","city":"London"}"#)
}

fn flip(name: &str, at: usize, bit: u8) -> Case {
    one(name).header_changed(|header| header[at] ^= bit)
}

/// A header with these keys and entries, and nothing wrong with its tag and its commitments.
fn listed(name: &str, mode: Mode, keys: &[&str], entries: &[(u16, Kind, &str)]) -> Case {
    let case = two(name);
    let (header, _) = case.header(mode, keys, entries);
    case.stored(&format!(r#"{{"$seal":{},"name":"AAAA","card":"AAAA"}}"#, token(&header))).tampered("header-layout")
}

fn many(name: &str, keys: u16, entries: u16) -> Case {
    let case = customer(name).protect("/name");
    let ids: Vec<KeyId> = (0..keys).map(|key| KeyId(uuid::Uuid::from_u128(key.into()))).collect();
    let pointers: Vec<String> = (0..entries).map(|entry| format!("/{entry}")).collect();
    let entries = (0_u16..).zip(&pointers).map(|(entry, pointer)| Entry { key: entry % keys, void: true, pointer });
    let entries: Vec<_> = entries.collect();
    let integrity_key = case.keys[0].id();
    let mut header = Core { whole: false, salt: salt(name), integrity_key, keys: &ids, entries: &entries }.bytes();
    header.extend_from_slice(&[0; 16]);
    case.stored(&format!(r#"{{"$seal":{}}}"#, token(&header))).tampered("header-layout")
}

/// Altered headers. One place, one key, unless it says otherwise.
fn flipped() -> Vec<Case> {
    let second_key = FIRST_KEY + 16;
    let pointer = FIRST_ENTRY + 5;
    vec![
        flip("flipped-format", 0, 1).fails("Unsupported", "format"),
        flip("flipped-suite", 1, 2).fails("Unsupported", "suite"),
        flip("flipped-part-to-another-document", 2, 1).tampered("header-layout"),
        flip("flipped-part-to-an-unknown-one", 2, 4).fails("Unsupported", "part"),
        flip("flipped-mode", 3, 1).tampered("header-layout"),
        flip("flipped-mode-to-an-unknown-one", 3, 0x80).fails("Unsupported", "mode"),
        flip("flipped-salt", SALT + 15, 1).tampered("commitment"),
        flip("flipped-integrity-key-id", INTEGRITY_ID, 1).tampered("commitment"),
        flip("flipped-number-of-keys", KEYS + 1, 2).tampered("header-layout"),
        flip("flipped-key-id", FIRST_KEY + 3, 1).tampered("tag"),
        flip("flipped-key-id-without-the-integrity-key", FIRST_KEY + 3, 1)
            .with(INTEGRITY, Missing)
            .fails("MissingKey", &with_bit(&id_of(CUSTOMER), 3, 1)),
        two("flipped-key-id-beside-a-live-key").header_changed(|header| header[second_key] ^= 1).tampered("commitment"),
        flip("flipped-number-of-entries", ENTRIES + 1, 2).tampered("header-layout"),
        flip("flipped-key-index", FIRST_ENTRY + 1, 1).tampered("header-layout"),
        flip("flipped-kind", FIRST_ENTRY + 2, 1).tampered("header-layout"),
        flip("unknown-kind", FIRST_ENTRY + 2, 2).tampered("header-layout"),
        flip("flipped-pointer-length", FIRST_ENTRY + 4, 1).tampered("header-layout"),
        flip("flipped-pointer", pointer + 1, 1).tampered("values"),
        one("pointer-of-another-member")
            .header_changed(|header| header[pointer + 1..pointer + 5].copy_from_slice(b"city"))
            .fails("Unsealed", "/name"),
    ]
}

/// Altered tags and commitments.
fn proofs() -> Vec<Case> {
    vec![
        one("flipped-tag-under-a-shredded-key")
            .with(CUSTOMER, Shredded)
            .header_changed(|header| {
                let tag = header.len() - 33;
                header[tag] ^= 1;
            })
            .tampered("tag"),
        two("flipped-tag-with-one-key-shredded")
            .with(CUSTOMER, Shredded)
            .header_changed(|header| {
                let tag = header.len() - 80;
                header[tag] ^= 0x80;
            })
            .tampered("tag"),
        two("flipped-tag-with-one-key-missing")
            .with(CUSTOMER, Missing)
            .header_changed(|header| {
                let tag = header.len() - 65;
                header[tag] ^= 1;
            })
            .tampered("tag"),
        two("flipped-tag-with-one-key-disabled")
            .with(CUSTOMER, Disabled)
            .header_changed(|header| {
                let tag = header.len() - 65;
                header[tag] ^= 1;
            })
            .tampered("tag"),
        one("flipped-commitment").header_changed(|header| *header.last_mut().unwrap() ^= 1).tampered("commitment"),
        two("commitments-exchanged")
            .header_changed(|header| {
                let first = header.len() - 64;
                header[first..].rotate_left(32);
            })
            .tampered("commitment"),
    ]
}

/// Headers of another shape, and what a header may not say.
fn layouts() -> Vec<Case> {
    let pointer = FIRST_ENTRY + 5;
    let shaped = |name, change: fn(&mut Vec<u8>)| one(name).header_changed(change).tampered("header-layout");
    let number = |header: &mut Vec<u8>, at: usize, number: u16| {
        header[at..at + 2].copy_from_slice(&number.to_be_bytes());
    };
    let fields = |name, keys: &[&str], entries: &[(u16, Kind, &str)]| listed(name, Mode::Fields, keys, entries);
    let whole = |name, keys: &[&str], entries: &[(u16, Kind, &str)]| listed(name, Mode::Whole, keys, entries);
    let unknown_kind = fields("unknown-kind-in-a-header-of-fitting-length", &[CUSTOMER], &[(0, Void, "/name")])
        .header_changed(|header| header[FIRST_ENTRY + 2] = 2);
    vec![
        shaped("empty-header", Vec::clear),
        shaped("truncated-header", |header| {
            header.pop();
        }),
        shaped("trailing-byte", |header| header.push(0)),
        shaped("a-commitment-too-many", |header| header.extend_from_slice(&[0; 32])),
        one("no-keys").header_changed(|header| number(header, KEYS, 0)).tampered("header-layout"),
        one("no-entries").header_changed(|header| number(header, ENTRIES, 0)).tampered("header-layout"),
        fields("unused-key-in-the-key-list", &[CUSTOMER, ORDER], &[(0, Sealed, "/name")]),
        fields("a-key-twice", &[CUSTOMER, CUSTOMER], &[(0, Sealed, "/name"), (1, Sealed, "/card")]),
        fields("a-pointer-twice", &[CUSTOMER], &[(0, Sealed, "/name"), (0, Sealed, "/name")]),
        fields("a-pointer-to-the-root-in-fields-mode", &[CUSTOMER], &[(0, Sealed, "")]),
        whole("a-pointer-to-a-member-in-whole-mode", &[CUSTOMER], &[(0, Sealed, "/name")]),
        whole("two-entries-in-whole-mode", &[CUSTOMER], &[(0, Sealed, ""), (0, Sealed, "/name")]),
        fields("no-keys-and-no-entries", &[], &[]),
        many("too-many-keys", 1_025, 1_025),
        many("too-many-entries", 1, 4_097),
        many("as-many-keys-and-entries-as-can-be", 1_024, 4_096).tampered("values"),
        fields("a-pointer-too-long", &[CUSTOMER], &[(0, Void, &format!("/{}", "x".repeat(4_096)))]),
        unknown_kind,
        fields("a-pointer-without-a-slash", &[CUSTOMER], &[(0, Sealed, "name")]),
        fields("a-pointer-with-a-wrong-escape", &[CUSTOMER], &[(0, Sealed, "/~2")]),
        one("a-pointer-that-is-no-utf-8").header_changed(|header| header[pointer + 1] = 0xff).tampered("header-layout"),
    ]
}

/// Seals in another place than their own.
fn contexts() -> Vec<Case> {
    let one = |name| customer(name).protect("/name").seals(r#"{"name":"Ada"}"#);
    let moved = |name, change: fn(&mut Case)| {
        let mut case = one(name);
        change(&mut case);
        case.tampered("commitment")
    };
    let other_event = |name| {
        let mut case = customer(name).protect("/name");
        case.event_id = id_of("another event");
        case.salt = Some(hex_of(&salt("another event")));
        case.seals(r#"{"name":"Eve"}"#)
    };
    let header_of_another = |name, status| {
        let other = other_event(name);
        let case = one(name).with(CUSTOMER, status);
        let header = member(&other.text(), "$seal");
        case.stored_as(|sealed| sealed.replace(&member(sealed, "$seal"), &header))
    };
    vec![
        moved("another-namespace", |case| case.namespace = "shop-staging".into()),
        moved("another-aggregate-type", |case| case.aggregate_type = "Supplier".into()),
        moved("another-aggregate-id", |case| case.aggregate_id = "cust_43".into()),
        moved("another-event-id", |case| case.event_id = id_of("another event")),
        moved("another-event-type", |case| case.event_type = "CustomerRenamed".into()),
        moved("another-event-version", |case| case.event_version = 2),
        // The items of the transcript stand behind their lengths: what moves from one to the next is seen.
        moved("names-divided-otherwise", |case| {
            case.aggregate_type = "Customercust".into();
            case.aggregate_id = "_42".into();
        }),
        moved("another-event-id-under-a-shredded-key", |case| {
            case.event_id = id_of("another event");
            case.keys[1].status = Shredded;
        })
        .fails("Tampered", "tag"),
        header_of_another("header-of-another-event", Live).tampered("commitment"),
        header_of_another("header-of-another-event-under-a-shredded-key", Shredded).tampered("tag"),
        one("token-of-another-event")
            .stored_as(|sealed| {
                let other = other_event("other");
                sealed.replace(&member(sealed, "name"), &member(&other.text(), "name"))
            })
            .tampered("token"),
    ]
}

/// Keys that are not there for the reader.
fn keys() -> Vec<Case> {
    let one = |name| customer(name).protect("/name").seals(r#"{"name":"Ada"}"#);
    vec![
        one("missing-key").with(CUSTOMER, Missing).fails("MissingKey", &id_of(CUSTOMER)),
        one("disabled-key").with(CUSTOMER, Disabled).fails("Disabled", "Customer cust_42"),
        two("missing-key-beside-a-shredded-one")
            .with(ORDER, Shredded)
            .with(CUSTOMER, Missing)
            .fails("MissingKey", &id_of(CUSTOMER)),
        two("disabled-key-beside-a-live-one").with(CUSTOMER, Disabled).fails("Disabled", "Customer cust_42"),
        two("the-first-key-that-can-not-be-used-is-named")
            .with(ORDER, Disabled)
            .with(CUSTOMER, Missing)
            .fails("Disabled", "Order ord_7"),
        two("an-altered-header-is-told-before-a-disabled-key")
            .with(CUSTOMER, Disabled)
            .header_changed(|header| header[SALT] ^= 1)
            .tampered("commitment"),
        one("missing-integrity-key")
            .with(CUSTOMER, Shredded)
            .with(INTEGRITY, Missing)
            .fails("MissingKey", &id_of(INTEGRITY)),
        one("disabled-integrity-key")
            .with(CUSTOMER, Shredded)
            .with(INTEGRITY, Disabled)
            .fails("Disabled", "$eventseal integrity"),
        one("shredded-integrity-key").with(CUSTOMER, Shredded).with(INTEGRITY, Shredded).tampered("tag"),
        one("another-key-of-that-id").secret(CUSTOMER, "another secret").tampered("commitment"),
        one("another-integrity-key-of-that-id")
            .with(CUSTOMER, Shredded)
            .secret(INTEGRITY, "another secret")
            .tampered("tag"),
    ]
}
