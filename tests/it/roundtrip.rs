//! I1: what is sealed opens to the very bytes that were appended.
//!
//! Documents are made as texts, not as values: what a JSON library would normalise away is what must
//! survive. Each is a list of segments, so that the tests know what must be hidden and what must not
//! change, without relying on the scanner that they test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::ExpectedVersion::NoStream;
use eventseal::*;
use futures::executor::block_on;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde::de::IgnoredAny;
use serde_json::Value;
use support::sealing::{CANARY, DIGITS, SealerWorld, holds_canary, with_payload};

fn schemas() -> Schemas {
    Schemas::builder([
        event("Fields")
            .version(1)
            .protect(&["/email", "/customer/name"], subject("Customer", "/customer_id"))
            .protect(&["/lines/*/note"], subject("Recipient", "/lines/*/to"))
            .protect(&["/owner/id", "/owner/tax"], subject("Owner", "/owner/id"))
            .protect(&["/a~1b", "/~02", "/~2", "/", "/grid/*/*"], Owner::Aggregate)
            .pad_to("/email", 256),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("WholeOfSubject").version(1).protect_whole(subject("Customer", "/customer/id")),
        event("Open").version(1),
    ])
    .allow_unknown_types()
    .build()
    .unwrap()
}

/// What `/email` and the like are called once they are unescaped, by where they stand.
const ROOT: &[&str] = &["email", "customer", "customer_id", "lines", "owner", "a/b", "~2", "*", "", "grid", "$seal"];
const CUSTOMER: &[&str] = &["name"];
const LINE: &[&str] = &["note", "to"];
const OWNER: &[&str] = &["id", "tax"];

#[derive(Clone)]
enum Segment {
    /// Stays as it is.
    Plain(String),
    /// The text of a protected value.
    Secret(String),
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(text) => write!(f, "«{text}»"),
        }
    }
}

type Document = Vec<Segment>;

fn text_of(document: &[Segment]) -> String {
    document.iter().map(|(Segment::Plain(text) | Segment::Secret(text))| text.as_str()).collect()
}

fn secrets_of(document: &[Segment]) -> Vec<&str> {
    document.iter().filter_map(|segment| if let Segment::Secret(text) = segment { Some(text.as_str()) } else { None }).collect()
}

/// A document written with its protected values in «guillemets».
fn template(text: &str) -> Document {
    let mut document = Vec::new();
    for (index, part) in text.split(['«', '»']).enumerate() {
        document.push(if index % 2 == 0 { Segment::Plain(part.to_owned()) } else { Segment::Secret(part.to_owned()) });
    }
    document
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn order() -> AggregateRef {
    aggregate("Order", "ord-1")
}

/// The sealed text without its header.
fn without_header(sealed: &str) -> String {
    let start = sealed.find("\"$seal\":\"").expect("a header");
    let value = start + "\"$seal\":\"".len();
    let end = value + sealed[value..].find('"').unwrap() + 1;
    assert!(is_base64url(&sealed[value..end - 1]));
    assert_eq!(&sealed[end..=end], ",", "something protected follows the header");
    format!("{}{}", &sealed[..start], &sealed[end + 1..])
}

fn is_base64url(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What stands for each secret, if everything else is as it was.
fn tokens(bare: &str, document: &[Segment]) -> Vec<String> {
    let mut rest = bare;
    let mut tokens = Vec::new();
    for segment in document {
        match segment {
            Segment::Plain(text) => {
                rest =
                    rest.strip_prefix(text.as_str()).unwrap_or_else(|| panic!("something unprotected changed: {text:?} became {rest:?}"));
            }
            Segment::Secret(_) => {
                let inner = rest.strip_prefix('"').expect("a string in place of a protected value");
                let end = inner.find('"').unwrap();
                assert!(is_base64url(&inner[..end]), "{inner}");
                tokens.push(inner[..end].to_owned());
                rest = &inner[end + 1..];
            }
        }
    }
    assert_eq!(rest, "");
    tokens
}

/// The invariant, and what must hold of the stored text on the way. Returns that text and its tokens.
fn check(world: &SealerWorld, document: &[Segment]) -> (PersistedEvent, Vec<String>) {
    let payload = text_of(document);
    assert!(is_json(payload.as_bytes()), "the test made no JSON: {payload}");
    let stored = world.seal(&order(), NewEvent::raw("Fields", 1, payload.as_str())).unwrap();
    let sealed = std::str::from_utf8(&stored.payload).unwrap();
    let secrets = secrets_of(document);
    let mut found = Vec::new();
    if secrets.is_empty() {
        assert_eq!(sealed, payload, "nothing to protect: nothing changes");
    } else {
        assert!(is_json(sealed.as_bytes()), "{sealed}");
        assert!(!holds_canary(sealed.as_bytes()), "plaintext leaked: {sealed}");
        found = tokens(&without_header(sealed), document);
        // Without the tags: two equal values under one key and one nonce would differ in those alone.
        let bodies = found.iter().map(|token| URL_SAFE_NO_PAD.decode(token).unwrap()).map(|token| token[..token.len() - 16].to_vec());
        let distinct: std::collections::HashSet<Vec<u8>> = bodies.collect();
        assert_eq!(distinct.len(), found.len(), "equal values must not look equal");
    }
    let opened = world.open(&stored).unwrap();
    assert_eq!(String::from_utf8(opened.payload).unwrap(), payload);
    assert!(opened.redacted.is_empty());
    (stored, found)
}

// ---- documents by chance

/// Makes choices of bytes. When they are used up it chooses 0: the simplest.
struct Dice<'a> {
    bytes: &'a [u8],
    /// Only what `serde_json::Value` can hold outside protected values.
    tame: bool,
}

impl Dice<'_> {
    fn pick(&mut self, choices: usize) -> usize {
        let Some((byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*byte) % choices
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.pick(texts.len())]
    }

    fn space(&mut self) -> &'static str {
        self.one_of(&["", "", "", " ", "\n", "\r\n\t", "     "])
    }

    fn number(&mut self, wild: bool) -> &'static str {
        const NUMBERS: &[&str] = &[
            "0",
            "-0",
            "1.0",
            "-0.0",
            "1E+2",
            "1e-400",
            "1234567890123456789012345",
            "0.1000",
            "9007199254740993",
            "0e0",
            "-12",
            "1e400",
            "-1E400",
        ];
        self.one_of(if wild { NUMBERS } else { &NUMBERS[..NUMBERS.len() - 2] })
    }

    /// The inside of a string.
    fn characters(&mut self, wild: bool) -> String {
        const PIECES: &[&str] = &[
            "a",
            "",
            r#"\""#,
            r"\\",
            r"\/",
            r"\u0000",
            r"\b\f\n\r\t",
            r"\uD83D\ude00",
            "é",
            "𝄞",
            "𠀀",
            "\u{30000}",
            "\u{e0001}",
            "\u{f0000}",
            "\u{10ffff}",
            "\u{feff}",
            "\u{2028}\u{7f}",
            "$seal",
            r#"{\"$seal\":\"x\"},\"email\":\"x\""#,
            "~0~1/*",
            r#"\\\\\"}]"#,
            r"\ud800",
            r"\udfff\ud800",
        ];
        let pieces = if wild { PIECES } else { &PIECES[..PIECES.len() - 2] };
        let mut text = String::new();
        for _ in 0..self.pick(4) {
            if self.pick(3) == 2 {
                let code = (0..3).fold(0, |code, _| code << 8 | u32::try_from(self.pick(256)).unwrap()) % 0x11_0000;
                text.extend(char::from_u32(code).filter(|character| *character >= ' ' && !['"', '\\', '«', '»'].contains(character)));
            } else {
                text.push_str(self.one_of(pieces));
            }
        }
        text
    }

    /// A name in one of its spellings, quotes included.
    fn spell(&mut self, name: &str) -> String {
        let mut text = String::from("\"");
        for character in name.chars() {
            let must = character < ' ' || character == '"' || character == '\\';
            match self.pick(6) {
                3 if character == '/' => text.push_str("\\/"),
                4 | 5 => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
                _ if must => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04X}"))),
                _ => text.push(character),
            }
        }
        text + "\""
    }

    /// A name, quotes included, that is none of these.
    fn other_name(&mut self, reserved: &[&str]) -> String {
        const NAMES: &[&str] =
            &["x", "Email", "email ", "e-mail", "~", "/", "**", "~1", "a~1b", "$Seal", "$seal\u{0}", "$sealed", "0", "𝄞", "constructor"];
        let name = if self.pick(2) == 0 {
            format!("\"{}\"", self.one_of(NAMES).replace('\u{0}', "\\u0000"))
        } else {
            format!("\"{}\"", self.characters(!self.tame))
        };
        let decoded = serde_json::from_str::<String>(&name).ok();
        if decoded.is_some_and(|name| reserved.contains(&&*name)) { "\"other\"".to_owned() } else { name }
    }

    /// Any value that is not protected.
    fn plain(&mut self, depth: usize) -> String {
        let wild = !self.tame;
        let kinds = if depth == 0 { 3 } else { 5 };
        match self.pick(kinds) {
            0 => self.number(wild).to_owned(),
            1 => format!("\"{}\"", self.characters(wild)),
            2 => self.one_of(&["null", "true", "false", "[]", "{}", "[ \n]", "{\t}"]).to_owned(),
            3 => {
                let items: Vec<String> =
                    (0..self.pick(4)).map(|_| format!("{}{}{}", self.space(), self.plain(depth - 1), self.space())).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let members: Vec<String> = (0..self.pick(4)).map(|_| self.plain_member(&[], depth - 1)).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn plain_member(&mut self, reserved: &[&str], depth: usize) -> String {
        let name = self.other_name(reserved);
        format!("{}{name}{}:{}{}{}", self.space(), self.space(), self.space(), self.plain(depth), self.space())
    }

    /// Any value that is protected; most hold a canary.
    fn secret(&mut self, depth: usize) -> String {
        match self.pick(if depth == 0 { 4 } else { 6 }) {
            0 => format!("\"{CANARY}{}\"", self.characters(true)),
            1 => format!("\"{}{CANARY}\"", self.characters(true)),
            2 => self.one_of(&["27182818284590452353", "-27182818284590452353.000e+10", "0.27182818284590452353E-9"]).to_owned(),
            3 => self.one_of(&["true", "false", "null", "\"\"", "0", "1e400", "{}", "[ ]", "\"\\ud800\""]).to_owned(),
            4 => {
                let items: Vec<String> =
                    (0..=self.pick(3)).map(|_| format!("{}{}{}", self.space(), self.secret(depth - 1), self.space())).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let names = [CANARY, "$seal", "email", "email", "\\u0065mail"];
                let members: Vec<String> = (0..=self.pick(3))
                    .map(|_| {
                        format!("{}\"{}\"{}:{}{}", self.space(), self.one_of(&names), self.space(), self.secret(depth - 1), self.space())
                    })
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn id(&mut self) -> &'static str {
        self.one_of(&[
            r#""cust-1""#,
            r#""cust\u002d1""#,
            "7",
            "-7",
            r#""7""#,
            "1234567890123456789012345",
            r#""Ünï𝄞""#,
            r#""a b/c~*\n""#,
            "0",
        ])
    }

    fn member(&mut self, name: &str, value: Document) -> Document {
        let mut member = vec![Segment::Plain(format!("{}{}:{}", self.spell(name), self.space(), self.space()))];
        member.extend(value);
        member
    }

    /// An object of these members and others, in any order.
    fn object(&mut self, mut members: Vec<Document>, reserved: &[&str]) -> Document {
        for _ in 0..self.pick(4) {
            members.push(vec![Segment::Plain(self.plain_member(reserved, 3))]);
            if self.pick(4) == 3 {
                members.push(members[members.len() - 1].clone());
            }
        }
        for last in (1..members.len()).rev() {
            members.swap(last, last - self.pick(last + 1));
        }
        let mut object = vec![Segment::Plain(format!("{{{}", self.space()))];
        for (index, member) in members.into_iter().enumerate() {
            if index > 0 {
                object.push(Segment::Plain(format!("{},{}", self.space(), self.space())));
            }
            object.extend(member);
        }
        object.push(Segment::Plain(format!("{}}}", self.space())));
        object
    }

    fn array(&mut self, items: Vec<Document>) -> Document {
        let mut array = vec![Segment::Plain(format!("[{}", self.space()))];
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                array.push(Segment::Plain(format!("{},{}", self.space(), self.space())));
            }
            array.extend(item);
        }
        array.push(Segment::Plain(format!("{}]", self.space())));
        array
    }

    /// A protected value; without a named owner, only `null` may stand there, and is left alone.
    fn protected(&mut self, owned: bool) -> Document {
        vec![if owned { Segment::Secret(self.secret(2)) } else { Segment::Plain("null".to_owned()) }]
    }

    fn document(&mut self) -> Document {
        let mut members = Vec::new();
        let owned = self.pick(8) != 7;
        if owned {
            let id = self.id();
            members.push(self.member("customer_id", vec![Segment::Plain(id.to_owned())]));
        } else if self.pick(2) == 0 {
            members.push(self.member("customer_id", vec![Segment::Plain("null".to_owned())]));
        }
        if self.pick(4) != 3 {
            let value = self.protected(owned);
            members.push(self.member("email", value));
        }
        match self.pick(4) {
            0 => {}
            1 => members.push(self.member("customer", vec![Segment::Plain("null".to_owned())])),
            _ => {
                let mut inner = Vec::new();
                if self.pick(3) != 2 {
                    let value = self.protected(owned);
                    inner.push(self.member("name", value));
                }
                let value = self.object(inner, CUSTOMER);
                members.push(self.member("customer", value));
            }
        }
        if self.pick(2) == 1 {
            let lines = (0..self.pick(4)).map(|_| self.line()).collect();
            let value = self.array(lines);
            members.push(self.member("lines", value));
        }
        if self.pick(3) == 1 {
            let id = self.one_of(&["\"c4n4ry-owner\"", "27182818284590452353", "\"c4n4r\\u0079\""]).to_owned();
            let mut inner = vec![self.member("id", vec![Segment::Secret(id)])];
            if self.pick(2) == 1 {
                let value = self.protected(true);
                inner.push(self.member("tax", value));
            }
            let value = self.object(inner, OWNER);
            members.push(self.member("owner", value));
        }
        for name in ["a/b", "~2", "*", ""] {
            if self.pick(2) == 1 {
                let value = self.protected(true);
                members.push(self.member(name, value));
            }
        }
        if self.pick(3) == 1 {
            let rows = (0..self.pick(3))
                .map(|_| {
                    if self.pick(4) == 3 {
                        return vec![Segment::Plain("null".to_owned())];
                    }
                    let cells = (0..self.pick(3)).map(|_| self.protected(true)).collect();
                    self.array(cells)
                })
                .collect();
            let value = self.array(rows);
            members.push(self.member("grid", value));
        }
        let mut document = vec![Segment::Plain(self.space().to_owned())];
        document.extend(self.object(members, ROOT));
        document.push(Segment::Plain(self.space().to_owned()));
        document
    }

    fn line(&mut self) -> Document {
        if self.pick(6) == 5 {
            return vec![Segment::Plain("null".to_owned())];
        }
        let owned = self.pick(6) != 5;
        let mut inner = Vec::new();
        if owned {
            let id = self.id();
            inner.push(self.member("to", vec![Segment::Plain(id.to_owned())]));
        }
        if self.pick(3) != 2 {
            let value = self.protected(owned);
            inner.push(self.member("note", value));
        }
        self.object(inner, LINE)
    }
}

fn documents(tame: bool) -> impl Strategy<Value = Document> {
    vec(any::<u8>(), 0..600).prop_map(move |bytes| Dice { bytes: &bytes, tame }.document())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

/// Unicode's planes, numbers beyond 64 bits and the like must not be rare.
#[test]
fn the_generator_makes_documents_worth_testing() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut many_secrets, mut lone, mut huge) = (0, 0, 0);
    for _ in 0..200 {
        let document = documents(false).new_tree(&mut runner).unwrap().current();
        many_secrets += usize::from(secrets_of(&document).len() >= 4);
        lone += usize::from(text_of(&document).contains("\\ud800"));
        huge += usize::from(text_of(&document).contains("1e400"));
    }
    assert!(many_secrets > 60 && lone > 20 && huge > 20, "{many_secrets} {lone} {huge}");
}

#[test]
fn i1_any_document_comes_back_byte_for_byte() {
    let world = SealerWorld::new(schemas());
    proptest!(config(2_000), |(document in documents(false))| {
        check(&world, &document);
    });
}

#[test]
fn i1_nasty_documents_come_back_byte_for_byte() {
    let world = SealerWorld::new(schemas());
    let deep = format!("{{\"customer_id\":1,\"email\":«{}\"c4n4ry\"{}»}}", "[".repeat(127), "]".repeat(127));
    let long = format!("{{\"customer_id\":1,\"email\":«\"{}\"»}}", CANARY.repeat(50_000));
    let many = (0..1_000).map(|line| format!("{{\"to\":{},\"note\":«\"c4n4ry {line}\"»}}", line % 50)).collect::<Vec<_>>().join(",");
    let many = format!("{{\"lines\":[{many}]}}");
    for text in [
        // Nothing to protect.
        "{}",
        " {\t} ",
        "null",
        "{\"customer\":null,\"lines\":null,\"grid\":[null,[]]}",
        "{\"email\":null}",
        "{\"customer_id\":null,\"email\":null}",
        "{\"lines\":[{\"note\":null},{},null]}",
        "{\"nested\":{\"$seal\":1},\"$Seal\":2,\"email2\":3}",
        // One value of each type.
        r#"{"customer_id":"a","email":«"c4n4ry"»}"#,
        r#"{"customer_id":"a","email":«27182818284590452353»}"#,
        r#"{"customer_id":"a","email":«1e400»}"#,
        r#"{"customer_id":"a","email":«-0»}"#,
        r#"{"customer_id":"a","email":«1.0»}"#,
        r#"{"customer_id":"a","email":«true»}"#,
        r#"{"customer_id":"a","email":«false»}"#,
        r#"{"customer_id":"a","email":«null»}"#,
        r#"{"customer_id":"a","email":«""»}"#,
        r#"{"customer_id":"a","email":«[]»}"#,
        r#"{"customer_id":"a","email":«{ }»}"#,
        r#"{"customer_id":"a","email":«[ "c4n4ry" , { "email" : 1, "email" : 2 } ]»}"#,
        r#"{"customer_id":"a","email":«{"$seal":"c4n4ry","$seal":2}»}"#,
        // Lone surrogates, escapes and padding's own bytes.
        r#"{"customer_id":"a","email":«"\ud800c4n4ry\udfff\ud83d"»}"#,
        "{\"customer_id\":\"a\",\"email\":«\"c4n4ry\u{80}\u{0080}\"»}",
        r#"{"\ud800":1,"\ud800":2,"email\udc00":"\ud800","customer_id":"a","email":«"c4n4ry"»}"#,
        // Lengths around the padding's border.
        "{\"customer_id\":\"a\",\"email\":«\"c4n4ry6789012345678901234567890\"»,\"a/b\":«\"c4n4ry678901234567890123456789\"»}",
        "{\"a/b\":«\"c4n4ry6789012345678901234567\"»,\"~2\":«\"c4n4ry67890123456789012345678\"»}",
        // White space everywhere.
        "\r\n\t { \"customer_id\" \n:\t\"a\"\r, \"email\"\t: «\"c4n4ry\"» \n}\t\r\n ",
        "{\"customer_id\":1,\"lines\" : [ { \"note\" :«\"c4n4ry\"» ,\n\"to\":\t2 } , null ,{ } ] }",
        // Spellings of names.
        r#"{"\u0063ustomer_id":"a","\u0065mail":«"c4n4ry"»}"#,
        r#"{"customer_id":"a","\u0065\u006D\u0061\u0069\u006c":«"c4n4ry"»,"customer":{"n\u0061me":«"c4n4ry"»}}"#,
        r#"{"a\/b":«"c4n4ry"»}"#,
        r#"{"a\u002fb":«"c4n4ry"»,"a~1b":1,"\u007e2":«"c4n4ry"»,"~02":2,"\u002a":«"c4n4ry"»,"~2\u0000":3}"#,
        r#"{"":«"c4n4ry"»,"\u0000":1," ":2}"#,
        // Duplicates where they are harmless.
        r#"{"x":1,"x":2,"customer_id":"a","x":{"email":1,"email":2},"email":«"c4n4ry"»,"x":3}"#,
        r#"{"customer_id":"a","customer":{"x":1,"name":«"c4n4ry"»,"x":2}}"#,
        // The protected name elsewhere.
        r#"{"customer_id":"a","customer":{"email":"kept","name":«"c4n4ry"»},"name":"kept","email":«"c4n4ry"»}"#,
        // Equal values under one key.
        r#"{"a/b":«"c4n4ry"»,"~2":«"c4n4ry"»,"*":«"c4n4ry"»,"":«"c4n4ry"»,"grid":[[«"c4n4ry"»,«"c4n4ry"»]]}"#,
        // Several scopes, some named twice, some by what is protected itself.
        r#"{"customer_id":"7","email":«"c4n4ry"»,"lines":[{"note":«"c4n4ry"»,"to":7},{"to":"7","note":«"c4n4ry"»},{"note":null},{"to":"x"}],"a/b":«1»}"#,
        r#"{"owner":{"tax":«"c4n4ry"»,"id":«"c4n4ry-scope"»},"email":null}"#,
        r#"{"owner":{"id":«27182818284590452353»,"tax":«null»}}"#,
        r#"{"grid":[[«1»,«"c4n4ry"»],[],null,[«["c4n4ry"]»]]}"#,
        // Numbers beside them.
        r#"{"customer_id":-12,"n":[1.0,-0,1e400,1E+2,0.10,1234567890123456789012345],"email":«-27182818284590452353.0e+1»}"#,
        &deep,
        &long,
        &many,
    ] {
        check(&world, &template(text));
    }
}

/// A database may re-space and re-order what is stored: names are what values are found by.
#[test]
fn i1_protected_values_survive_a_jsonb_column_exactly() {
    let world = SealerWorld::new(schemas());
    proptest!(config(1_000), |(document in documents(true), reverse in any::<bool>(), spaces in any::<bool>())| {
        let (stored, tokens) = check(&world, &document);
        let reprinted = print(&serde_json::from_slice(&stored.payload).unwrap(), reverse, spaces);
        let mut expected = if tokens.is_empty() { reprinted.clone() } else { without_reprinted_header(&reprinted) };
        for (token, secret) in tokens.iter().zip(secrets_of(&document)) {
            expected = expected.replace(&format!("\"{token}\""), secret);
        }
        let opened = world.open(&with_payload(&stored, reprinted)).unwrap();
        prop_assert_eq!(String::from_utf8(opened.payload).unwrap(), expected);
        prop_assert!(opened.redacted.is_empty());
    });
}

/// Takes the header away with one comma, behind it if there is one.
fn without_reprinted_header(text: &str) -> String {
    let start = text
        .match_indices("\"$seal\"")
        .map(|(at, _)| at)
        .find(|at| depth_at(text, *at) == 1 && text[at + 7..].trim_start().starts_with(':'))
        .unwrap();
    let value = start + 7 + text[start + 7..].find('"').unwrap() + 1;
    let end = value + text[value..].find('"').unwrap() + 1;
    let rest = text[end..].trim_start();
    if let Some(behind) = rest.strip_prefix(',') {
        format!("{}{behind}", &text[..start])
    } else {
        format!("{}{}", &text[..text[..start].rfind(',').unwrap()], &text[end..])
    }
}

/// How many objects and arrays are open at `at`, which is not in a string.
fn depth_at(text: &str, at: usize) -> i32 {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in text[..at].bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    if in_string { -1 } else { depth }
}

/// Another printer: members sorted up or down, with or without spaces.
fn print(value: &Value, reverse: bool, spaces: bool) -> String {
    let space = if spaces { " " } else { "" };
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|(name, value)| (Value::from(name.as_str()).to_string(), value)).collect();
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if reverse {
                members.reverse();
            }
            let members: Vec<String> =
                members.into_iter().map(|(name, value)| format!("{name}{space}:{space}{}", print(value, reverse, spaces))).collect();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| print(item, reverse, spaces)).collect();
            format!("[{}]", items.join(&format!("{space},{space}")))
        }
        scalar => scalar.to_string(),
    }
}

#[test]
fn i1_the_header_may_stand_anywhere_in_the_root() {
    let world = SealerWorld::new(schemas());
    let (stored, _) = check(&world, &template(r#"{"customer_id":"a","email":«"c4n4ry"»,"z":1}"#));
    let text = String::from_utf8(stored.payload.clone()).unwrap();
    let header = text[1..=text.find(',').unwrap()].trim_end_matches(',').to_owned();
    let rest = without_header(&text);
    let members: Vec<&str> = rest[1..rest.len() - 1].split(',').collect();
    for at in 0..=members.len() {
        for (before, after) in [("", ""), (" ", "\n")] {
            let mut members = members.clone();
            let header = format!("{before}{header}{after}");
            members.insert(at, &header);
            let mut moved = stored.clone();
            moved.payload = format!("{{{}}}", members.join(",")).into_bytes();
            let opened = String::from_utf8(world.open(&moved).unwrap().payload).unwrap();
            assert!(is_json(opened.as_bytes()), "{opened}");
            assert_eq!(opened.replace([' ', '\n'], ""), r#"{"customer_id":"a","email":"c4n4ry","z":1}"#);
        }
    }
}

// ---- whole payloads

fn check_whole(world: &SealerWorld, event_type: &str, payload: &[u8]) {
    let stored = world.seal(&order(), NewEvent::raw(event_type, 1, payload)).unwrap();
    let sealed: Value = serde_json::from_slice(&stored.payload).unwrap();
    let members: Vec<&String> = sealed.as_object().unwrap().keys().collect();
    assert_eq!(members, ["$seal", "$sealed"]);
    assert!(sealed.as_object().unwrap().values().all(|value| is_base64url(value.as_str().unwrap())));
    assert!(!holds_canary(&stored.payload));
    assert_eq!(world.open(&stored).unwrap().payload, payload);
    // And after a JSONB column has had its way.
    for (reverse, spaces) in [(false, true), (true, false), (true, true)] {
        let reprinted = with_payload(&stored, print(&sealed, reverse, spaces));
        assert_eq!(world.open(&reprinted).unwrap().payload, payload);
    }
}

#[test]
fn i1_whole_payloads_are_any_bytes() {
    let world = SealerWorld::new(schemas());
    for payload in [&b""[..], b"\0", b"\x80", b"\x80\0\0", &[0xff; 100], b"{", b"null", b"{}", b"{\"$sealed\":1}", b"c4n4ry", &[0; 4096]] {
        check_whole(&world, "Whole", payload);
    }
    check_whole(&world, "Whole", "[".repeat(1_000).as_bytes());
    check_whole(&world, "Whole", &CANARY.repeat(40_000).into_bytes());
    proptest!(config(500), |(payload in vec(any::<u8>(), 0..300))| {
        check_whole(&world, "Whole", &payload);
    });
}

#[test]
fn i1_whole_payloads_are_json_of_a_subject() {
    let world = SealerWorld::new(schemas());
    proptest!(config(300), |(bytes in vec(any::<u8>(), 0..300))| {
        let mut dice = Dice { bytes: &bytes, tame: false };
        let id = dice.id();
        let text = format!("{{\"customer\" : {{ \"id\":{id} }},\"x\": [{}, \"{CANARY}\", {DIGITS}] }}", dice.plain(4));
        check_whole(&world, "WholeOfSubject", text.as_bytes());
    });
}

// ---- through the store

#[tokio::test]
async fn i1_a_batch_of_all_kinds_comes_back_byte_for_byte() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    let payloads: [(&str, &[u8]); 7] = [
        ("Fields", br#"{"customer_id":"a","email":"c4n4ry"}"#),
        ("Fields", br#"{"customer_id":"a","email":"c4n4ry"}"#),
        ("Whole", b"c4n4ry \xff"),
        ("Open", b"\xff not JSON"),
        ("Unknown", b"{\"email\": 1.0}"),
        ("WholeOfSubject", br#"{"customer":{"id":"a"}}"#),
        ("Fields", b"{ }"),
    ];
    let events: Vec<NewEvent> = payloads.iter().map(|(event_type, payload)| NewEvent::raw(*event_type, 1, *payload)).collect();
    let mut tx = db.begin();
    let appended = store.append(&mut tx, &order(), NoStream, &events).await.unwrap();
    tx.commit().unwrap();
    let read = store.read_stream(&mut db.begin(), &order()).await.unwrap();
    let page = store.read_events(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    let inner = store.inner().read_stream(&mut db.begin(), &order()).await.unwrap();
    for (index, (_, payload)) in payloads.iter().enumerate() {
        assert_eq!(appended.events[index].payload, *payload);
        assert_eq!(read.events[index].payload, *payload);
        assert_eq!(page.events[index].payload, *payload);
    }
    assert!(inner.events.iter().all(|event| !holds_canary(&event.payload)));
    assert_ne!(inner.events[0].payload, inner.events[1].payload, "every event is sealed under keys of its own");
    assert_eq!(inner.events[3].payload, payloads[3].1);
    assert_eq!(inner.events[4].payload, payloads[4].1);
}

/// Padding hides lengths: `true` and `false` must look alike even after an erasure.
#[test]
fn sealed_values_of_one_padded_length_have_one_length() {
    let world = SealerWorld::new(schemas());
    let length = |value: &str| {
        let event = NewEvent::raw("Fields", 1, format!("{{\"customer_id\":1,\"email\":{value},\"a/b\":{value}}}"));
        let sealed = world.seal(&order(), event).unwrap();
        let sealed: Value = serde_json::from_slice(&sealed.payload).unwrap();
        (sealed["email"].as_str().unwrap().len(), sealed["a/b"].as_str().unwrap().len())
    };
    let short = length("true");
    assert_eq!(short, length("false"));
    assert_eq!(short, length("\"c4n4ry6789012345678901234567\""), "30 and 31 bytes still fit");
    assert_eq!(short.0, length(&format!("\"{}\"", "x".repeat(250))).0, "padded to 256 bytes");
    assert!(short.1 < length(&format!("\"{}\"", "x".repeat(32))).1);
}

/// Every key is made once, whatever the spelling of the ids.
#[test]
fn scope_ids_are_decoded_strings_and_spelled_integers() {
    let world = SealerWorld::new(schemas());
    for (id, name) in [(r#""cust-1""#, "cust-1"), (r#""cust\u002d1""#, "cust-1"), ("7", "7"), (r#""7""#, "7"), ("-7", "-7")] {
        check(&world, &template(&format!("{{\"customer_id\":{id},\"email\":«\"{CANARY}\"»}}")));
        let history = block_on(world.sealer.keys().key_history(&mut world.db.begin(), &KeyScope::new("Customer", name))).unwrap();
        assert_eq!(history.unwrap().keys.len(), 1, "{id}");
    }
}
