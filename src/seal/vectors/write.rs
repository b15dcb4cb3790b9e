//! What the vector files of format version 1 hold, case by case.
//!
//! Expectations are written by hand, so that they are claims about the engine and not its echo; what
//! the engine can't be made to write (headers of an attacker, void entries) is put together here. A long
//! file, because it is a list.

pub(super) mod later;

use super::{Binding, Bytes, Case, Key, Protected, Status, Vectors, WrappedKey, bytes_of, hex_of, parse};
use crate::crypto::primitives::{EventKey, PAD};
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::wrap_with_salt;
use crate::keys::names::KeyId;
use crate::seal::format::{Document, EntryKind, Mode, write_core};
use crate::seal::token::{push_token, read_token};
use EntryKind::{Sealed, Void};
use Status::{Disabled, Live, Missing, Shredded};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

const INTEGRITY: &str = "integrity";
const CUSTOMER: &str = "customer 42";
const ORDER: &str = "order 7";

// Where things stand in a header with one key.
const SALT: usize = 4;
const INTEGRITY_ID: usize = 20;
const KEYS: usize = 36;
const FIRST_KEY: usize = 38;
const ENTRIES: usize = 54;
const FIRST_ENTRY: usize = 56;

pub(super) fn pass() -> Vectors {
    let cases = [fields(), whole(), redactions(), stores(), readers()].concat();
    Vectors {
        about: "eventseal, sealed payload format version 1: payloads that open. Frozen: see docs/format.md.".into(),
        format: 1,
        cases,
        wrapped_keys: wrapped_keys(),
    }
}

pub(super) fn fail() -> Vectors {
    let cases = [headers(), contexts(), keys(), forgeries(), values(), seals()].concat();
    Vectors {
        about: "eventseal, sealed payload format version 1: payloads that must not open. Frozen: see docs/format.md."
            .into(),
        format: 1,
        cases,
        wrapped_keys: wrapped_keys_that_do_not_open(),
    }
}

// ---- what opens

fn fields() -> Vec<Case> {
    vec![
        customer("one-field").protect("/name").seals(r#"{"name":"Ada","city":"London"}"#),
        customer("several-fields-one-key")
            .protect("/name")
            .protect("/contact/email")
            .protect("/contact/phone")
            .seals(r#"{"name":"Ada","contact":{"email":"ada@example.org","phone":null,"since":1843},"city":"London"}"#),
        two("two-scopes-in-one-event"),
        order("wildcards-in-arrays").key("guest 1", "Guest", "1").protect_for("/guests/*/name", "Guest", "/guests/*/id").protect("/guests/*/seats/*").seals(
            r#"{"guests":[{"id":1,"name":"Ada","seats":["1A","1B"]},{"id":2,"seats":[]},{"name":null},{"id":1,"name":"Grace","seats":[2.50]}]}"#,
        ),
        customer("every-type-of-json-value")
            .protect("/object")
            .protect("/array")
            .protect("/string")
            .protect("/number")
            .protect("/float")
            .protect("/digits")
            .protect("/true")
            .protect("/false")
            .protect("/null")
            .protect("/empty")
            .seals(concat!(
                r#"{"object":{"b" : 1, "a":[{}],"b":2},"array":[ ],"string":"\u00e9\ud83d\ude00\ud800 \/","number":1e400,"#,
                r#""float":-0.0,"digits":1234567890123456789012345,"true":true,"false":false,"null":null,"empty":""}"#
            )),
        customer("odd-white-space-duplicates-and-escaped-names").protect("/name").protect("/a~1b/deep").seals(
            " \t{ \"x\" : 1 ,\r\n \"x\":2,\"n\\u0061me\"\t:\n\"Ada\" , \"a\\/b\" : {\"\\u0064eep\":[1, 2] , \
             \"d\\\"\":0}, \"\\ud800\":3, \"x\":[]  }\r\n ",
        ),
        customer("pointers-of-any-name")
            .protect("/größe")
            .protect("/名前/~0tilde~0/~1slash~1")
            .protect("/")
            .protect("/~2")
            .protect("/~01")
            .protect("/0/1")
            .protect("/\"quoted\"")
            .protect("/-")
            .seals(concat!(
                "{\"gr\u{f6}\u{df}e\":180,\"\u{540d}\u{524d}\":{\"~tilde~\":{\"/slash/\":\"x\"}},\"\":\"no \
                 name\",\"*\":\"star\",\"~1\":1,",
                "\"0\":[\"not this\",\"this\"],\"\\\"quoted\\\"\":\"y\",\"-\":\"minus\"}"
            )),
        customer("values-around-the-padding")
            .protect("/30")
            .protect("/31")
            .protect("/32")
            .protect("/63")
            .protect("/64")
            .seals(&format!(
                r#"{{"30":"{}","31":"{}","32":"{}","63":"{}","64":"{}"}}"#,
                "x".repeat(28),
                "x".repeat(29),
                "x".repeat(30),
                "x".repeat(61),
                "x".repeat(62)
            )),
        customer("more-padding").protect("/gender").pad(96).protect("/name").pad(64).seals(r#"{"gender":"female","name":"Ada"}"#),
        customer("nested-as-deep-as-can-be").protect("/name").seals(&format!(r#"{{"name":"Ada","deep":{}{}}}"#, "[".repeat(127), "]".repeat(127))),
        customer("highest-version-and-other-names")
            .named("プロダクション", "Customer/é", "cust:42\n", "customer.registered", 2_147_483_647)
            .protect("/name")
            .seals(r#"{"name":"Ada"}"#),
    ]
}

fn whole() -> Vec<Case> {
    let whole = |name| customer(name).protect("");
    vec![
        whole("whole-json").seals(" { \"name\" : \"Ada\" }\n"),
        whole("whole-json-that-is-no-object").seals("[1, \"Ada\"]"),
        whole("whole-that-is-no-json").seals_bytes(b"\xff\x00"),
        whole("whole-ending-like-padding").seals_bytes(b"x\x80\x00\x00"),
        whole("whole-of-no-bytes").seals_bytes(b""),
        whole("whole-for-a-subject")
            .pad(256)
            .owned_by("Customer", "/customer")
            .seals(r#"{"customer":"cust_42","name":"Ada"}"#),
        whole("whole-shredded")
            .stand_in(r#"{"erased":true}"#)
            .seals("{\"name\":\"Ada\"}")
            .with(CUSTOMER, Shredded)
            .opens(r#"{"erased":true}"#, &[""]),
        whole("whole-re-ordered").seals(r#"{"name":"Ada"}"#).stored_as(|sealed| {
            format!(
                " {{ \"\\u0024sealed\" : {} ,\n\"$seal\": {} }} ",
                member(sealed, "$sealed"),
                member(sealed, "$seal")
            )
        }),
    ]
}

fn redactions() -> Vec<Case> {
    let ada = r#"{"name":"Ada","email":"ada@example.org","city":"London"}"#;
    let erased = customer("all-shredded-with-stand-ins")
        .protect("/name")
        .stand_in(r#""[erased]""#)
        .protect("/email")
        .stand_in(r#"{"erased":true}"#)
        .seals(ada)
        .with(CUSTOMER, Shredded);
    let void = {
        let case = customer("all-void").protect("/name").protect("/email").stand_in("\"\"").with(CUSTOMER, Shredded);
        let (header, _) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Void, "/email"), (0, Void, "/name")]);
        case.stored(&format!(r#"{{"city":"London","name":null,"$seal":{},"email": null}}"#, token(&header)))
    };
    let beside = {
        let case = two("void-beside-sealed").with(ORDER, Shredded);
        let (header, keys) = case.header(Mode::Fields, &[ORDER, CUSTOMER], &[(0, Void, "/card"), (1, Sealed, "/name")]);
        let name = keys[1].token(1, "/name", b"\"Ada\"");
        case.stored(&format!(r#"{{"$seal":{},"customer_id":"cust_42","card":null,"name":{name}}}"#, token(&header)))
    };
    let both = {
        let case = customer("void-and-sealed-under-one-key").protect("/name").protect("/nick").with(CUSTOMER, Shredded);
        let (header, keys) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/name"), (0, Void, "/nick")]);
        let name = keys[0].token(0, "/name", b"\"Ada\"");
        case.stored(&format!(r#"{{"$seal":{},"nick":null,"name":{name}}}"#, token(&header)))
    };
    let void_whole = {
        let case = customer("void-whole").protect("").with(CUSTOMER, Shredded);
        let (header, _) = case.header(Mode::Whole, &[CUSTOMER], &[(0, Void, "")]);
        case.stored(&format!(r#"{{"$seal":{},"$sealed":null}}"#, token(&header)))
    };
    vec![
        erased.opens(r#"{"name":"[erased]","email":{"erased":true},"city":"London"}"#, &["/name", "/email"]),
        two("one-of-two-scopes-shredded")
            .with(CUSTOMER, Shredded)
            .opens(r#"{"customer_id":"cust_42","card":{"no":"4111","cvc":"123"},"name":null}"#, &["/name"]),
        order("shredded-in-arrays")
            .key("guest 1", "Guest", "1")
            .key("guest 2", "Guest", "2")
            .protect_for("/guests/*/name", "Guest", "/guests/*/id")
            .stand_in("[]")
            .seals(r#"{"guests":[{"id":1,"name":"Ada"},{"id":2,"name":"Grace"},{"id":1,"name":"Ada"}]}"#)
            .with("guest 1", Shredded)
            .opens(
                r#"{"guests":[{"id":1,"name":[]},{"id":2,"name":"Grace"},{"id":1,"name":[]}]}"#,
                &["/guests/0/name", "/guests/2/name"],
            ),
        void.opens(r#"{"city":"London","name":null,"email": ""}"#, &["/name", "/email"]),
        beside.opens(r#"{"customer_id":"cust_42","card":null,"name":"Ada"}"#, &["/card"]),
        both.opens(r#"{"nick":null,"name":null}"#, &["/nick", "/name"]),
        void_whole.opens("null", &[""]),
    ]
}

fn stores() -> Vec<Case> {
    let lines = |name| {
        order(name)
            .protect("/email")
            .protect("/lines/*/note")
            .seals(r#"{"email":"a@x.example","id":7,"lines":[{"note":"first","sku":"A"},{"sku":"B","note":"second"}],"big":1.0}"#)
    };
    let notes = |sealed: &str| {
        let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
        [0, 1].map(|line| value["lines"][line]["note"].to_string())
    };
    let jsonb = |sealed: &str| {
        let [first, second] = notes(sealed);
        format!(
            r#"{{"id": 7, "big": 1.0, "$seal": {}, "email": {}, "lines": [{{"sku": "A", "note": {first}}}, {{"sku": "B", "note": {second}}}]}}"#,
            member(sealed, "$seal"),
            member(sealed, "email")
        )
    };
    let last = |sealed: &str| {
        let header = member(sealed, "$seal");
        format!(
            "{}\r\n, \"\\u0024\\u0073eal\" : {header}\t}}",
            sealed.replacen(&format!("\"$seal\":{header},"), "", 1).trim_end_matches('}')
        )
    };
    let other_order = |sealed: &str| {
        let [first, second] = notes(sealed);
        format!(
            "{{\"lines\":[ {{\"note\":{first},\"sku\":\"A\"}},{{\"note\":{second}}}],\n \"$seal\" : {} ,\n \
             \"e\\u006dail\":{}}}",
            member(sealed, "$seal"),
            member(sealed, "email")
        )
    };
    vec![
        lines("re-ordered-and-re-spaced-by-a-store").stored_as(jsonb).opens(
            r#"{"id": 7, "big": 1.0,  "email": "a@x.example", "lines": [{"sku": "A", "note": "first"}, {"sku": "B", "note": "second"}]}"#,
            &[],
        ),
        lines("header-at-the-end").stored_as(last).opens(
            "{\"email\":\"a@x.example\",\"id\":7,\"lines\":[{\"note\":\"first\",\"sku\":\"A\"},{\"sku\":\"B\",\"note\":\"second\"}],\"big\":1.0\r\n\t}",
            &[],
        ),
        lines("header-in-the-middle-values-in-another-order").stored_as(other_order).opens(
            "{\"lines\":[ {\"note\":\"first\",\"sku\":\"A\"},{\"note\":\"second\"}],\n \n \
             \"e\\u006dail\":\"a@x.example\"}",
            &[],
        ),
        lines("redacted-places-follow-the-store")
            .stored_as(other_order)
            .with(ORDER, Shredded)
            .opens(
                "{\"lines\":[ {\"note\":null,\"sku\":\"A\"},{\"note\":null}],\n \n \"e\\u006dail\":null}",
                &["/lines/0/note", "/lines/1/note", "/email"],
            ),
        lines("unprotected-members-are-not-authenticated")
            .stored_as(|sealed| sealed.replace(r#""id":7"#, r#""id":[8],"more":{}"#))
            .opens(
                r#"{"email":"a@x.example","id":[8],"more":{},"lines":[{"note":"first","sku":"A"},{"sku":"B","note":"second"}],"big":1.0}"#,
                &[],
            ),
    ]
}

fn readers() -> Vec<Case> {
    let ada = r#"{"name":"Ada","email":"ada@example.org","city":"London"}"#;
    let live = |name| customer(name).protect("/name").protect("/email").seals(ada);
    let mut unprotected = live("a-reader-that-protects-nothing-any-more");
    unprotected.plan.clear();
    unprotected = unprotected.read_only();
    let mut narrower = live("a-reader-that-protects-less").with(CUSTOMER, Shredded);
    narrower.plan.remove(1);
    narrower = narrower.read_only();
    let mut fields_for_whole = customer("a-reader-of-fields-meets-a-whole").protect("").seals(ada).read_only();
    fields_for_whole.plan[0].pointer = "/name".into();
    let mut plaintext = live("accepted-plaintext-beside-a-seal")
        .stored_as(|sealed| sealed.replace(r#""city":"London""#, r#""nick":"A""#));
    plaintext = plaintext
        .protect("/nick")
        .accepting()
        .read_only()
        .opens(r#"{"name":"Ada","email":"ada@example.org","nick":"A"}"#, &[]);
    vec![
        unprotected,
        narrower.opens(r#"{"name":null,"email":null,"city":"London"}"#, &["/name", "/email"]),
        fields_for_whole,
        plaintext,
        customer("accepted-plaintext")
            .protect("/name")
            .accepting()
            .stored(r#"{"name":"Ada"}"#)
            .opens(r#"{"name":"Ada"}"#, &[]),
        customer("accepted-plaintext-that-is-no-json").protect("").accepting().stored_bytes(b"\xff\x00"),
        customer("nothing-protected-is-present")
            .protect("/name")
            .protect("/a/b")
            .stored(r#"{"name":null,"a":null,"city":"London"}"#),
        live("live-keys-need-no-integrity-key").with(INTEGRITY, Missing),
        live("live-keys-need-no-tag").header_changed(|header| {
            let tag = header.len() - 48;
            header[tag] ^= 1;
        }),
        customer("no-header-below-the-root").protect("/name").seals(r#"{"name":"Ada","a":{"$seal":"x"},"$sealed":1}"#),
    ]
}

// ---- what does not

/// Altered headers. One place, one key, unless it says otherwise.
fn headers() -> Vec<Case> {
    let one = |name| customer(name).protect("/name").seals(r#"{"name":"Ada","city":"London"}"#);
    let flip = |name, at: usize, bit: u8| one(name).header_changed(|header| header[at] ^= bit);
    let second_key = FIRST_KEY + 16;
    let pointer = FIRST_ENTRY + 5;
    let shaped = |name, change: fn(&mut Vec<u8>)| one(name).header_changed(change).tampered("header-layout");
    let number = |header: &mut Vec<u8>, at: usize, number: u16| {
        header[at..at + 2].copy_from_slice(&number.to_be_bytes());
    };
    let entries = |name, mode, keys: &[&str], entries: &[(u16, EntryKind, &str)]| {
        let case = two(name);
        let (header, _) = case.header(mode, keys, entries);
        case.stored(&format!(r#"{{"$seal":{},"name":"AAAA","card":"AAAA"}}"#, token(&header))).tampered("header-layout")
    };
    let many = |name, keys: u16, entries: u16| {
        let case = customer(name).protect("/name");
        let ids: Vec<KeyId> = (0..keys).map(|key| KeyId(uuid::Uuid::from_u128(key.into()))).collect();
        let pointers: Vec<String> = (0..entries).map(|entry| format!("/{entry}")).collect();
        let entries = (0_u16..).zip(&pointers).map(|(entry, pointer)| (entry % keys, Void, pointer.as_str()));
        let entries: Vec<_> = entries.collect();
        let mut header =
            write_core(Document::Payload, Mode::Fields, &salt(name), case.keys[0].id(), &ids, entries.into_iter());
        header.extend_from_slice(&[0; 16]);
        case.stored(&format!(r#"{{"$seal":{}}}"#, token(&header))).tampered("header-layout")
    };
    let unknown_kind =
        entries("unknown-kind-in-a-header-of-fitting-length", Mode::Fields, &[CUSTOMER], &[(0, Void, "/name")])
            .header_changed(|header| header[FIRST_ENTRY + 2] = 2);
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
        shaped("empty-header", Vec::clear),
        shaped("truncated-header", |header| {
            header.pop();
        }),
        shaped("trailing-byte", |header| header.push(0)),
        shaped("a-commitment-too-many", |header| header.extend_from_slice(&[0; 32])),
        one("no-keys").header_changed(|header| number(header, KEYS, 0)).tampered("header-layout"),
        one("no-entries").header_changed(|header| number(header, ENTRIES, 0)).tampered("header-layout"),
        entries("unused-key-in-the-key-list", Mode::Fields, &[CUSTOMER, ORDER], &[(0, Sealed, "/name")]),
        entries("a-key-twice", Mode::Fields, &[CUSTOMER, CUSTOMER], &[(0, Sealed, "/name"), (1, Sealed, "/card")]),
        entries("a-pointer-twice", Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/name"), (0, Sealed, "/name")]),
        entries("a-pointer-to-the-root-in-fields-mode", Mode::Fields, &[CUSTOMER], &[(0, Sealed, "")]),
        entries("a-pointer-to-a-member-in-whole-mode", Mode::Whole, &[CUSTOMER], &[(0, Sealed, "/name")]),
        entries("two-entries-in-whole-mode", Mode::Whole, &[CUSTOMER], &[(0, Sealed, ""), (0, Sealed, "/name")]),
        entries("no-keys-and-no-entries", Mode::Fields, &[], &[]),
        many("too-many-keys", 1_025, 1_025),
        many("too-many-entries", 1, 4_097),
        many("as-many-keys-and-entries-as-can-be", 1_024, 4_096).tampered("values"),
        entries("a-pointer-too-long", Mode::Fields, &[CUSTOMER], &[(0, Void, &format!("/{}", "x".repeat(4_096)))]),
        unknown_kind,
        entries("a-pointer-without-a-slash", Mode::Fields, &[CUSTOMER], &[(0, Sealed, "name")]),
        entries("a-pointer-with-a-wrong-escape", Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/~2")]),
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

/// What somebody may write who has the store, and perhaps a key of his own, but not these.
fn forgeries() -> Vec<Case> {
    let one = |name| customer(name).protect("/name").seals(r#"{"name":"Ada"}"#);
    let pair =
        |name| customer(name).protect("/name").protect("/email").seals(r#"{"name":"Ada","email":"ada@example.org"}"#);
    let forged = |name, integrity: &str, key: &str| {
        let case = order(name).protect("/note").with(ORDER, Shredded).key("mallory", "Customer", "mallory");
        let header = case.header_by(Mode::Fields, integrity, &[key], &[(0, Sealed, "/note")]).0;
        case.stored(&format!(r#"{{"$seal":{},"note":{}}}"#, token(&header), token(&[0; 48])))
    };
    let shortened = |name, status| {
        pair(name)
            .with(CUSTOMER, status)
            .header_changed(|header| {
                // Without the second of two entries.
                header.drain(FIRST_ENTRY + 10..FIRST_ENTRY + 21);
                header[ENTRIES + 1] = 1;
            })
            .stored_as(|sealed| sealed.replace(&format!(",\"email\":{}", member(sealed, "email")), ""))
    };
    let renamed = |case: Case, at: usize| {
        let id = parse(&id_of("shredded long ago"));
        case.key("shredded long ago", "Customer", "cust_1")
            .with("shredded long ago", Shredded)
            .header_changed(|header| header[at..at + 16].copy_from_slice(id.as_bytes()))
    };
    let as_data_key = {
        let case = one("integrity-key-as-a-data-key");
        let (header, keys) = case.header(Mode::Fields, &[INTEGRITY], &[(0, Sealed, "/name")]);
        let name = keys[0].token(0, "/name", b"\"Eve\"");
        case.stored(&format!(r#"{{"$seal":{},"name":{name}}}"#, token(&header)))
    };
    let all_void = {
        let case = one("voided-without-the-integrity-key").with(CUSTOMER, Shredded);
        let (mut header, _) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Void, "/name")]);
        let tag = header.len() - 16;
        header[tag..].fill(0);
        case.stored(&format!(r#"{{"$seal":{},"name":null}}"#, token(&header)))
    };
    let header_entry = |name, pointer| {
        let case = one(name);
        let (header, keys) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Sealed, pointer)]);
        let name = keys[0].token(0, pointer, b"\"Eve\"");
        case.stored(&format!(r#"{{"$seal":{},"name":{name}}}"#, token(&header))).tampered("header-layout")
    };
    let short_padding = {
        let case = one("padding-to-a-multiple-of-16");
        let (header, keys) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/name")]);
        let name = token(&keys[0].encrypt(0, "/name", b"\"Eve\"\x80\0\0\0\0\0\0\0\0\0\0"));
        case.stored(&format!(r#"{{"$seal":{},"name":{name}}}"#, token(&header))).tampered("token")
    };
    let void_live = |name, keys: &[&str], entries: &[(u16, EntryKind, &str)]| {
        let case = two(name);
        let (header, keys) = case.header(Mode::Fields, keys, entries);
        let card = keys[0].token(0, "/card", b"\"4111\"");
        case.stored(&format!(r#"{{"$seal":{},"card":{card},"name":null}}"#, token(&header)))
    };
    let void_only = {
        let case = one("void-entry-of-a-live-key-alone");
        let (header, _) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Void, "/name")]);
        case.stored(&format!(r#"{{"$seal":{},"name":null}}"#, token(&header)))
    };
    vec![
        shortened("manifest-shortened-with-its-field", Live).tampered("commitment"),
        shortened("manifest-shortened-with-its-field-under-a-shredded-key", Shredded).tampered("tag"),
        renamed(one("shredded-key-id-put-into-a-live-header"), FIRST_KEY).tampered("tag"),
        renamed(two("shredded-key-id-put-in-beside-a-live-key"), FIRST_KEY + 16).tampered("commitment"),
        forged("tag-by-a-key-that-is-no-integrity-key", "mallory", ORDER).tampered("tag"),
        forged("integrity-key-id-is-the-shredded-key", ORDER, ORDER).tampered("tag"),
        as_data_key.tampered("reserved-key"),
        all_void.tampered("tag"),
        void_live("void-entry-of-a-live-key", &[ORDER, CUSTOMER], &[(0, Sealed, "/card"), (1, Void, "/name")])
            .tampered("void-key"),
        void_live(
            "void-entry-beside-a-sealed-one-of-a-live-key",
            &[ORDER],
            &[(0, Sealed, "/card"), (0, Void, "/name")],
        )
        .tampered("void-key"),
        void_only.tampered("void-key"),
        header_entry("an-entry-for-the-header-itself", "/$seal"),
        header_entry("an-entry-inside-the-header", "/$seal/name"),
        short_padding,
    ]
}

/// Altered values.
fn values() -> Vec<Case> {
    let pair = |name| {
        customer(name).protect("/name").protect("/nick").seals(r#"{"name":"Augusta Ada","nick":"Ada","city":"London"}"#)
    };
    let replaced = |name, with: &str| pair(name).stored_as(|sealed| sealed.replace(&member(sealed, "name"), with));
    let shredded = |name, with: &str| replaced(name, with).with(CUSTOMER, Shredded);
    let changed = |name, change: fn(&mut Vec<u8>)| {
        pair(name).stored_as(|sealed| {
            let old = member(sealed, "name");
            let mut bytes = Vec::new();
            read_token(old.as_bytes(), &mut bytes).unwrap();
            change(&mut bytes);
            sealed.replace(&old, &token(&bytes))
        })
    };
    let void = |name, value: &str| {
        let case = customer(name).protect("/name").with(CUSTOMER, Shredded);
        let (header, _) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Void, "/name")]);
        case.stored(&format!(r#"{{"$seal":{},"name":{value}}}"#, token(&header)))
    };
    let unpadded = |name, padded: &[u8]| {
        let case = customer(name).protect("/name");
        let (header, keys) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/name")]);
        let name = token(&keys[0].encrypt(0, "/name", padded));
        case.stored(&format!(r#"{{"$seal":{},"name":{name}}}"#, token(&header)))
    };
    let lines = |name| order(name).protect("/lines/*/note").seals(r#"{"lines":[{"note":"a"},{"note":"b"}]}"#);
    vec![
        changed("flipped-token", |token| token[0] ^= 1).tampered("token"),
        changed("flipped-tag-of-a-token", |token| *token.last_mut().unwrap() ^= 1).tampered("token"),
        changed("truncated-token", |token| token.truncate(15)).tampered("token"),
        changed("empty-token", Vec::clear).tampered("token"),
        pair("token-of-another-field")
            .stored_as(|sealed| {
                let (name, nick) = (member(sealed, "name"), member(sealed, "nick"));
                sealed.replace(&name, "?").replace(&nick, &name).replace('?', &nick)
            })
            .tampered("token"),
        lines("tokens-exchanged-in-an-array")
            .stored_as(|sealed| {
                let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
                let [a, b] = [0, 1].map(|line| value["lines"][line]["note"].to_string());
                sealed.replace(&a, "?").replace(&b, &a).replace('?', &b)
            })
            .tampered("token"),
        replaced("plaintext-in-place-of-a-token", "\"Eve!\"").tampered("token-encoding"),
        replaced("null-in-place-of-a-token", "null").tampered("token-encoding"),
        replaced("token-with-padding", "\"AA==\"").tampered("token-encoding"),
        replaced("token-of-the-standard-alphabet", "\"++//\"").tampered("token-encoding"),
        replaced("token-with-trailing-bits", "\"AB\"").tampered("token-encoding"),
        pair("token-with-an-escape")
            .stored_as(|sealed| {
                let name = member(sealed, "name");
                sealed.replace(&name, &format!("\"\\u{:04x}{}", name.as_bytes()[1], &name[2..]))
            })
            .tampered("token-encoding"),
        unpadded("value-without-padding", b"\"Ada\"").tampered("token"),
        unpadded("value-of-zeros", &[0; 32]).tampered("token"),
        shredded("malformed-token-under-a-shredded-key", "\"Eve!\"").tampered("token-shape"),
        shredded("null-under-a-shredded-key", "null").tampered("token-shape"),
        shredded("short-token-under-a-shredded-key", &token(&[0; 16])).tampered("token-shape"),
        shredded("token-of-a-wrong-length-under-a-shredded-key", &token(&[0; 47])).tampered("token-shape"),
        void("void-place-holding-a-value", "\"Eve\"").tampered("void-value"),
        void("void-place-holding-a-token", &token(&[0; 48])).tampered("void-value"),
        pair("missing-value")
            .stored_as(|sealed| sealed.replace(&format!("\"name\":{},", member(sealed, "name")), ""))
            .tampered("values"),
        lines("missing-element")
            .stored_as(|sealed| {
                let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
                sealed.replace(&format!(",{}", value["lines"][1]), "")
            })
            .tampered("values"),
        pair("a-sealed-member-twice")
            .stored_as(|sealed| sealed.replace(r#""city""#, r#""n\u0061me""#))
            .tampered("duplicate"),
        {
            let mut case = pair("a-sealed-member-twice-for-a-reader-that-does-not-protect-it")
                .stored_as(|sealed| sealed.replace(r#""city""#, r#""n\u0061me""#));
            case.plan.remove(0);
            case.tampered("values")
        },
    ]
}

/// Seals that are missing, doubled or no seals, and payloads that are not what a reader protects.
fn seals() -> Vec<Case> {
    let one = |name| customer(name).protect("/name").seals(r#"{"name":"Ada","city":"London"}"#);
    let whole = |name| customer(name).protect("").seals(r#"{"name":"Ada"}"#);
    let syntax = |name, members: &str| {
        one(name).stored_as(|sealed| sealed.replace(r#""city":"London""#, members)).fails("InvalidPayload", "")
    };
    let seal = |name, value: &str| one(name).stored_as(|sealed| sealed.replace(&member(sealed, "$seal"), value));
    // A header of a length that leaves unused bits in the last character.
    let uneven = |name| customer(name).protect("/nickname").seals(r#"{"nickname":"A"}"#);
    let last_changed = |name, change: fn(char) -> String| {
        uneven(name).stored_as(|sealed| {
            let header = member(sealed, "$seal");
            let (rest, last) = header.split_at(header.len() - 2);
            sealed.replace(&header, &format!("{rest}{}\"", change(char::from(last.as_bytes()[0]))))
        })
    };
    vec![
        one("stripped-seal")
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", "/name"),
        customer("plaintext-without-a-seal")
            .protect("/a/*/b")
            .stored(r#"{"a":[{"b":null},{},{"b":false}]}"#)
            .fails("Unsealed", "/a/2/b"),
        one("stripped-seal-under-a-shredded-key")
            .with(CUSTOMER, Shredded)
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", "/name"),
        one("plaintext-beside-a-seal")
            .protect("/nick")
            .stored_as(|sealed| sealed.replace("city", "nick"))
            .fails("Unsealed", "/nick"),
        whole("stripped-seal-of-a-whole")
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", ""),
        customer("no-json-where-the-whole-is-protected").protect("").stored_bytes(b"\xff\x00").fails("Unsealed", ""),
        {
            let mut case = one("fields-sealed-where-the-whole-is-protected");
            case.plan[0].pointer = String::new();
            case.fails("Unsealed", "")
        },
        seal("seal-is-null", "null").tampered("header-encoding"),
        seal("seal-is-a-number", "1").tampered("header-encoding"),
        seal("seal-is-an-object", "{}").tampered("header-encoding"),
        seal("seal-is-not-base64url", "\"AQEA AAA\"").tampered("header-encoding"),
        seal("seal-of-an-impossible-length", "\"AQEAA\"").tampered("header-encoding"),
        last_changed("seal-with-padding", |last| format!("{last}==")).tampered("header-encoding"),
        last_changed("seal-with-trailing-bits", |last| char::from(last as u8 + 1).to_string())
            .tampered("header-encoding"),
        one("seal-with-an-escape")
            .stored_as(|sealed| sealed.replace("\"$seal\":\"A", "\"$seal\":\"\\u0041"))
            .tampered("header-encoding"),
        one("two-seals").stored_as(|sealed| sealed.replacen('{', r#"{"$seal":"","#, 1)).tampered("duplicate"),
        one("two-seals-one-escaped")
            .stored_as(|sealed| {
                sealed.replace(r#""city":"London""#, &format!("\"\\u0024seal\":{}", member(sealed, "$seal")))
            })
            .tampered("duplicate"),
        whole("extra-member-beside-a-whole")
            .stored_as(|sealed| sealed.replacen('{', r#"{"x":1,"#, 1))
            .tampered("values"),
        whole("missing-whole")
            .stored_as(|sealed| format!("{{\"$seal\":{}}}", member(sealed, "$seal")))
            .tampered("values"),
        whole("other-member-in-place-of-a-whole")
            .stored_as(|sealed| sealed.replace("$sealed", "$sealer"))
            .tampered("values"),
        whole("two-wholes")
            .stored_as(|sealed| sealed.replacen('{', &format!("{{\"$sealed\":{},", member(sealed, "$sealed")), 1))
            .tampered("values"),
        one("no-json").stored_as(|sealed| sealed.replace('}', "")).fails("InvalidPayload", ""),
        one("no-utf-8").stored_bytes(b"{\"name\":\"\xff\"}").fails("InvalidPayload", ""),
        syntax("no-comma", r#""x":1 "y":2"#),
        syntax("a-comma-too-many", r#""x":1,"#),
        syntax("no-colon", r#""x" 1"#),
        syntax("no-name", "x:1"),
        syntax("no-comma-in-an-array", r#""x":[1 2]"#),
        syntax("an-array-ended-like-an-object", r#""x":[1}"#),
        syntax("no-value", r#""x":"#),
        syntax("a-leading-zero", r#""x":01"#),
        syntax("a-number-without-digits", r#""x":1.e5"#),
        syntax("no-literal", r#""x":True"#),
        syntax("an-unknown-escape", r#""x":"\x41""#),
        syntax("an-escape-of-three-digits", r#""x":"\u041""#),
        syntax("a-control-character", "\"x\":\"\t\""),
        syntax("white-space-of-another-kind", "\"x\":\u{a0}1"),
        one("a-byte-order-mark").stored_as(|sealed| format!("\u{feff}{sealed}")).fails("InvalidPayload", ""),
        one("something-behind-the-document").stored_as(|sealed| format!("{sealed} x")).fails("InvalidPayload", ""),
        one("nested-too-deep")
            .stored_as(|sealed| sealed.replace("\"London\"", &format!("{}{}", "[".repeat(128), "]".repeat(128))))
            .fails("LimitExceeded", ""),
        customer("a-scalar-on-the-way")
            .protect("/contact/email")
            .stored(r#"{"contact":"ada@example.org"}"#)
            .fails("ShapeMismatch", "/contact"),
        customer("an-object-where-an-array-is-protected")
            .protect("/a/*")
            .stored(r#"{"a":{"b":1}}"#)
            .fails("ShapeMismatch", "/a"),
        customer("an-array-where-an-object-is-protected")
            .protect("/a/*/b")
            .stored(r#"{"a":[{},[1]]}"#)
            .fails("ShapeMismatch", "/a/1"),
        customer("a-root-that-is-no-object").protect("/name").stored(r#""Ada""#).fails("ShapeMismatch", ""),
    ]
}

// ---- wrapped keys

/// The keys of the first case: its data key under a key-encryption key, that one under a keyring's.
fn wrapped_keys() -> Vec<WrappedKey> {
    let (kek_id, kek) = (id_of("kek"), secret("kek"));
    let bind = |items: &[&[u8]], wrapping: &[u8; 32], key: [u8; 32], salt_of: &str| {
        let wrapped = wrap_with_salt(&SecretKey::new(*wrapping), items, &salt(salt_of), &SecretKey::new(key)).unwrap();
        (hex_of(&wrapped), Some(hex_of(&key)))
    };
    let master = secret("master key");
    let kek_uuid = parse(&kek_id);
    let kek_items: [&[u8]; 4] = [b"eventseal/v1/kek", b"shop-test", kek_uuid.as_bytes(), b"2026-11"];
    let (wrapped, opened) = bind(&kek_items, &master, kek, "wrapped kek");
    let of_keyring = WrappedKey {
        name: "key-encryption-key-under-a-keyring".into(),
        wrapping_key: hex_of(&master),
        namespace: "shop-test".into(),
        kek_id: kek_id.clone(),
        bound_to: Binding::KeyEncryptionKey { master_key_id: "2026-11".into() },
        wrapped,
        key: opened,
    };
    let of_kek = |name: &str, owner: &str, kind: &str, id: &str, version: u32| {
        let key_id = id_of(owner);
        let key_uuid = parse(&key_id);
        let number = version.to_be_bytes();
        let items: [&[u8]; 7] = [
            b"eventseal/v1/dek",
            b"shop-test",
            key_uuid.as_bytes(),
            kind.as_bytes(),
            id.as_bytes(),
            &number,
            kek_uuid.as_bytes(),
        ];
        let (wrapped, key) = bind(&items, &kek, secret(owner), name);
        WrappedKey {
            name: name.into(),
            wrapping_key: hex_of(&kek),
            namespace: "shop-test".into(),
            kek_id: kek_id.clone(),
            bound_to: Binding::DataKey { key_id, scope_kind: kind.into(), scope_id: id.into(), version },
            wrapped,
            key,
        }
    };
    vec![
        of_keyring,
        of_kek("data-key", CUSTOMER, "Customer", "cust_42", 1),
        of_kek("integrity-key", INTEGRITY, "$eventseal", "integrity", 1),
        of_kek("data-key-of-a-later-version", "guest 2", "Guest", "名前/2", 65_536),
    ]
}

fn wrapped_keys_that_do_not_open() -> Vec<WrappedKey> {
    let [kek, data, ..] = &wrapped_keys()[..] else { unreachable!() };
    let altered = |from: &WrappedKey, name: &str, change: &dyn Fn(&mut WrappedKey)| {
        let mut wrapped = WrappedKey { name: name.into(), key: None, ..from.clone() };
        change(&mut wrapped);
        wrapped
    };
    let bytes = |wrapped: &mut WrappedKey, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes_of(&wrapped.wrapped);
        change(&mut bytes);
        wrapped.wrapped = hex_of(&bytes);
    };
    let bind = |id: &str, kind: &str, scope: &str, version| Binding::DataKey {
        key_id: id_of(id),
        scope_kind: kind.into(),
        scope_id: scope.into(),
        version,
    };
    vec![
        altered(kek, "kek-of-another-namespace", &|wrapped| wrapped.namespace = "shop-staging".into()),
        altered(kek, "kek-of-another-id", &|wrapped| wrapped.kek_id = id_of("another kek")),
        altered(kek, "kek-of-another-master-key-id", &|wrapped| {
            wrapped.bound_to = Binding::KeyEncryptionKey { master_key_id: "2026-12".into() };
        }),
        altered(kek, "kek-of-another-master-key", &|wrapped| {
            wrapped.wrapping_key = hex_of(&secret("another master key"))
        }),
        altered(data, "data-key-of-another-namespace", &|wrapped| wrapped.namespace = "shop-staging".into()),
        altered(data, "data-key-of-another-kek-id", &|wrapped| wrapped.kek_id = id_of("another kek")),
        altered(data, "data-key-of-another-id", &|wrapped| wrapped.bound_to = bind(ORDER, "Customer", "cust_42", 1)),
        altered(data, "data-key-of-another-kind", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Supplier", "cust_42", 1)
        }),
        altered(data, "data-key-of-another-scope", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Customer", "cust_43", 1)
        }),
        altered(data, "data-key-of-another-version", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Customer", "cust_42", 2)
        }),
        altered(data, "data-key-with-another-version-byte", &|wrapped| bytes(wrapped, &|bytes| bytes[0] = 2)),
        altered(data, "data-key-with-another-salt", &|wrapped| bytes(wrapped, &|bytes| bytes[1] ^= 1)),
        altered(data, "data-key-altered", &|wrapped| bytes(wrapped, &|bytes| bytes[17] ^= 1)),
        altered(data, "data-key-with-another-tag", &|wrapped| bytes(wrapped, &|bytes| bytes[64] ^= 1)),
        altered(data, "data-key-truncated", &|wrapped| bytes(wrapped, &|bytes| bytes.truncate(64))),
        altered(data, "data-key-and-one-byte", &|wrapped| bytes(wrapped, &|bytes| bytes.push(0))),
    ]
}

// ---- how cases are made

fn customer(name: &str) -> Case {
    case(name, "Customer", "cust_42", "CustomerRegistered", key(CUSTOMER, "Customer", "cust_42"))
}

fn order(name: &str) -> Case {
    case(name, "Order", "ord_7", "OrderPlaced", key(ORDER, "Order", "ord_7"))
}

/// An order with a place of its own and one of its customer's; the order's key is the first in the header.
fn two(name: &str) -> Case {
    order(name)
        .protect("/card")
        .protect_for("/name", "Customer", "/customer_id")
        .key(CUSTOMER, "Customer", "cust_42")
        .seals(r#"{"customer_id":"cust_42","card":{"no":"4111","cvc":"123"},"name":"Ada"}"#)
}

fn case(name: &str, aggregate_type: &str, aggregate_id: &str, event_type: &str, owner: Key) -> Case {
    Case {
        name: name.into(),
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
    fn named(
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

    fn key(mut self, label: &str, kind: &str, id: &str) -> Self {
        self.keys.push(key(label, kind, id));
        self
    }

    /// Under the aggregate's key.
    fn protect(mut self, pointer: &str) -> Self {
        let scope_kind = self.keys[1].scope_kind.clone();
        self.plan.push(Protected {
            pointer: pointer.into(),
            scope_kind,
            scope_pointer: None,
            pad: PAD,
            stand_in: "null".into(),
        });
        self
    }

    fn protect_for(self, pointer: &str, kind: &str, scope_pointer: &str) -> Self {
        self.protect(pointer).owned_by(kind, scope_pointer)
    }

    fn owned_by(self, kind: &str, scope_pointer: &str) -> Self {
        self.last(|field| {
            field.scope_kind = kind.into();
            field.scope_pointer = Some(scope_pointer.into());
        })
    }

    fn pad(self, pad: usize) -> Self {
        self.last(|field| field.pad = pad)
    }

    fn stand_in(self, json: &str) -> Self {
        self.last(|field| field.stand_in = json.into())
    }

    fn last(mut self, change: impl FnOnce(&mut Protected)) -> Self {
        change(self.plan.last_mut().unwrap());
        self
    }

    fn accepting(mut self) -> Self {
        self.accept_plaintext = true;
        self
    }

    /// A sealer writes this. It is stored as it is, and opens to the plaintext, unless more is said.
    fn seals(self, plaintext: &str) -> Self {
        self.seals_bytes(plaintext.as_bytes())
    }

    fn seals_bytes(mut self, plaintext: &[u8]) -> Self {
        self.plaintext = Some(plaintext.to_vec().into());
        self.sealed = Some(self.seal().into());
        self.stored = self.sealed.clone().unwrap();
        self.opened = self.plaintext.clone();
        self.redacted = Some(Vec::new());
        self
    }

    /// No sealer with this plan and these keys writes what is stored.
    fn read_only(mut self) -> Self {
        (self.salt, self.plaintext, self.sealed) = (None, None, None);
        self
    }

    /// A reader meets this. It opens to itself, unless more is said.
    fn stored(self, payload: &str) -> Self {
        self.stored_bytes(payload.as_bytes())
    }

    fn stored_bytes(mut self, payload: &[u8]) -> Self {
        self.stored = payload.to_vec().into();
        self.opened = Some(self.stored.clone());
        self.redacted = Some(Vec::new());
        self.read_only()
    }

    fn stored_as(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.stored = Bytes::Text(change(&self.text()));
        self
    }

    fn header_changed(self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.stored_as(|payload| {
            let old = member(payload, "$seal");
            let mut header = Vec::new();
            read_token(old.as_bytes(), &mut header).unwrap();
            change(&mut header);
            payload.replace(&old, &token(&header))
        })
    }

    fn with(mut self, label: &str, status: Status) -> Self {
        self.key_mut(label).status = status;
        self
    }

    fn secret(mut self, label: &str, other: &str) -> Self {
        self.key_mut(label).secret = hex_of(&secret(other));
        self
    }

    fn opens(mut self, opened: &str, redacted: &[&str]) -> Self {
        self.opened = Some(Bytes::Text(opened.into()));
        self.redacted = Some(redacted.iter().map(|place| (*place).to_owned()).collect());
        self
    }

    fn tampered(self, check: &str) -> Self {
        self.fails("Tampered", check)
    }

    fn fails(mut self, error: &str, detail: &str) -> Self {
        (self.opened, self.redacted) = (None, None);
        (self.error, self.detail) = (Some(error.into()), Some(detail.into()));
        self.read_only()
    }

    /// The stored payload.
    fn text(&self) -> String {
        String::from_utf8(self.stored.bytes()).unwrap()
    }

    /// A header for this event, with the right tag and commitments, whatever it says.
    fn header(&self, mode: Mode, keys: &[&str], entries: &[(u16, EntryKind, &str)]) -> (Vec<u8>, Vec<EventKeyOf>) {
        self.header_by(mode, INTEGRITY, keys, entries)
    }

    fn header_by(
        &self,
        mode: Mode,
        integrity: &str,
        keys: &[&str],
        entries: &[(u16, EntryKind, &str)],
    ) -> (Vec<u8>, Vec<EventKeyOf>) {
        let key = |label: &str| self.keys.iter().find(|key| key.key_id == id_of(label)).unwrap();
        let ids: Vec<_> = keys.iter().map(|label| key(label).id()).collect();
        let salt = salt(&self.name);
        let mut header = write_core(Document::Payload, mode, &salt, key(integrity).id(), &ids, entries.iter().copied());
        let transcript = self
            .with_event(&[], |event| crate::seal::binding::Binding::of(&self.namespace(), event).transcript(&header));
        header.extend_from_slice(&key(integrity).data_key().header_tag(&transcript));
        let mut event_keys = Vec::new();
        for (index, label) in (0_u16..).zip(keys) {
            let event_key = key(label).data_key().event_key(&transcript, index).unwrap();
            if entries.iter().any(|(key, kind, _)| *key == index && *kind == Sealed) {
                header.extend_from_slice(event_key.commitment());
            }
            let info = [&b"eventseal/v1/seal"[..], transcript.as_bytes(), &index.to_be_bytes()].concat();
            let mut enc = [0; 32];
            Hkdf::<Sha256>::from_prk(&bytes_of(&key(label).secret)).unwrap().expand(&info, &mut enc).unwrap();
            event_keys.push(EventKeyOf { event_key, enc });
        }
        (header, event_keys)
    }

    fn key_mut(&mut self, label: &str) -> &mut Key {
        self.keys.iter_mut().find(|key| key.key_id == id_of(label)).unwrap()
    }
}

/// An event key of the engine, and its encryption key for what the engine does not write.
struct EventKeyOf {
    event_key: EventKey,
    enc: [u8; 32],
}

impl EventKeyOf {
    fn token(&self, index: u16, pointer: &str, value: &[u8]) -> String {
        let mut sealed = Vec::new();
        self.event_key.seal(index, pointer, value, PAD, &mut sealed).unwrap();
        token(&sealed)
    }

    fn encrypt(&self, index: u8, pointer: &str, padded: &[u8]) -> Vec<u8> {
        let mut nonce = Nonce::default();
        nonce[11] = index;
        let mut sealed = padded.to_vec();
        let cipher = Aes256Gcm::new_from_slice(&self.enc).unwrap();
        let tag = cipher.encrypt_inout_detached(&nonce, pointer.as_bytes(), sealed.as_mut_slice().into()).unwrap();
        sealed.extend_from_slice(&tag);
        sealed
    }
}

fn key(label: &str, kind: &str, id: &str) -> Key {
    Key {
        key_id: id_of(label),
        scope_kind: kind.into(),
        scope_id: id.into(),
        status: Live,
        secret: hex_of(&secret(label)),
    }
}

/// A member of the root, as text.
fn member(payload: &str, name: &str) -> String {
    let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
    payload[name].to_string()
}

fn token(bytes: &[u8]) -> String {
    let mut token = Vec::new();
    push_token(&mut token, bytes);
    String::from_utf8(token).unwrap()
}

// Everything that is random in real events comes from the case's name here.

fn id_of(label: &str) -> String {
    uuid::Builder::from_random_bytes(digest("id", label)).into_uuid().to_string()
}

fn with_bit(id: &str, byte: usize, bit: u8) -> String {
    let mut bytes = parse(id).into_bytes();
    bytes[byte] ^= bit;
    uuid::Uuid::from_bytes(bytes).to_string()
}

fn salt(label: &str) -> [u8; 16] {
    digest("salt", label)
}

fn secret(label: &str) -> [u8; 32] {
    digest("secret", label)
}

fn digest<const N: usize>(what: &str, label: &str) -> [u8; N] {
    *Sha256::digest(format!("eventseal test vectors: {what} {label}")).first_chunk().unwrap()
}
