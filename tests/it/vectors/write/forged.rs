//! Forgeries of an attacker who can write to the store, and who may have a key of his own, or the keys of the case.

use super::making::Kind::{self, Sealed, Void};
use super::making::{
    CUSTOMER, ENTRIES, FIRST_ENTRY, FIRST_KEY, INTEGRITY, Mode, ORDER, customer, id_of, member, order, two,
};
use crate::vectors::case::Status::{Live, Shredded};
use crate::vectors::case::{Case, parse};
use eventseal::internals::format::token;

pub(super) fn all() -> Vec<Case> {
    [altered(), valid()].concat()
}

fn one(name: &str) -> Case {
    customer(name).protect("/name").seals(r#"{"name":"Ada"}"#)
}

/// Forgeries of an attacker who can write to the store, and may have a key of his own, but not the keys of the case.
fn altered() -> Vec<Case> {
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
    vec![
        shortened("manifest-shortened-with-its-field", Live).tampered("commitment"),
        shortened("manifest-shortened-with-its-field-under-a-shredded-key", Shredded).tampered("tag"),
        renamed(one("shredded-key-id-put-into-a-live-header"), FIRST_KEY).tampered("tag"),
        renamed(two("shredded-key-id-put-in-beside-a-live-key"), FIRST_KEY + 16).tampered("commitment"),
        forged("tag-by-a-key-that-is-no-integrity-key", "mallory", ORDER).tampered("tag"),
        forged("integrity-key-id-is-the-shredded-key", ORDER, ORDER).tampered("tag"),
        as_data_key.tampered("reserved-key"),
        all_void.tampered("tag"),
    ]
}

/// Forgeries with the keys of the case, which no sealer writes.
fn valid() -> Vec<Case> {
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
    let void_live = |name, keys: &[&str], entries: &[(u16, Kind, &str)]| {
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
