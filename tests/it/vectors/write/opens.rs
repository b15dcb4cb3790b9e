//! Payloads that open.

use super::making::Kind::{Sealed, Void};
use super::making::{CUSTOMER, INTEGRITY, Mode, ORDER, customer, member, order, two};
use crate::vectors::case::Case;
use crate::vectors::case::Status::{Missing, Shredded};
use eventseal::internals::format::token;

pub(super) fn all() -> Vec<Case> {
    [fields(), odd_fields(), whole(), redactions(), stores(), readers()].concat()
}

fn fields() -> Vec<Case> {
    vec![
        customer("one-field").protect("/name").seals(r#"{"name":"Ada","city":"London"}"#),
        customer("several-fields-one-key")
            .protect("/name")
            .protect("/contact/email")
            .protect("/contact/phone")
            .seals(r#"{"name":"Ada","contact":{"email":"ada@example.org","phone":null,"since":1843},"city":"London"}"#),
        two("two-scopes-in-one-event"),
        order("wildcards-in-arrays").key("guest 1", "Guest", "1").protect_for("/guests/*/name", "Guest", "/guests/*/id")
            .protect("/guests/*/seats/*").seals(
            concat!(r#"{"guests":[{"id":1,"name":"Ada","seats":["1A","1B"]},{"id":2,"seats":[]},{"name":null},{"id":1,"#, r#""name":"Grace","seats":[2.50]}]}"#),
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
    ]
}

/// White space, names, lengths and depths at the edges of what may be.
fn odd_fields() -> Vec<Case> {
    vec![
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
        customer("more-padding")
            .protect("/gender")
            .pad(96)
            .protect("/name")
            .pad(64)
            .seals(r#"{"gender":"female","name":"Ada"}"#),
        customer("nested-as-deep-as-can-be").protect("/name").seals(&format!(
            r#"{{"name":"Ada","deep":{}{}}}"#,
            "[".repeat(127),
            "]".repeat(127)
        )),
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

fn lines(name: &str) -> Case {
    order(name).protect("/email").protect("/lines/*/note").seals(concat!(
        r#"{"email":"a@x.example","id":7,"lines":[{"note":"first","sku":"A"},"#,
        r#"{"sku":"B","note":"second"}],"big":1.0}"#
    ))
}

fn notes(sealed: &str) -> [String; 2] {
    let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
    [0, 1].map(|line| value["lines"][line]["note"].to_string())
}

fn stores() -> Vec<Case> {
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
            concat!(r#"{"id": 7, "big": 1.0,  "email": "a@x.example", "lines": [{"sku": "A", "note": "first"}, {"sku": "B","#, r#" "note": "second"}]}"#),
            &[],
        ),
        lines("header-at-the-end").stored_as(last).opens(
            "{\"email\":\"a@x.example\",\"id\":7,\"lines\":[{\"note\":\"first\",\"sku\":\"A\"},\
             {\"sku\":\"B\",\"note\":\"second\"}],\"big\":1.0\r\n\t}",
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
                concat!(r#"{"email":"a@x.example","id":[8],"more":{},"lines":[{"note":"first","sku":"A"},{"sku":"B","#, r#""note":"second"}],"big":1.0}"#),
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
