//! I1: what is sealed opens to the very bytes that were appended.
//!
//! Documents are made as texts, not as values: what a JSON library would normalise away is what must
//! survive. Each is a list of segments, so that the tests know what must be hidden and what must not
//! change, without relying on the scanner that they test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

mod documents;
mod stored;
mod whole;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::{AggregateRef, NewEvent, Owner, PersistedEvent, Schemas, aggregate, event, subject};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use support::sealing::{CANARY, SealerWorld, holds_canary};

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
    document
        .iter()
        .filter_map(|segment| if let Segment::Secret(text) = segment { Some(text.as_str()) } else { None })
        .collect()
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
                rest = rest
                    .strip_prefix(text.as_str())
                    .unwrap_or_else(|| panic!("something unprotected changed: {text:?} became {rest:?}"));
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
        let bodies = found
            .iter()
            .map(|token| URL_SAFE_NO_PAD.decode(token).unwrap())
            .map(|token| token[..token.len() - 16].to_vec());
        let distinct: std::collections::HashSet<Vec<u8>> = bodies.collect();
        assert_eq!(distinct.len(), found.len(), "equal values must not look equal");
    }
    let opened = world.open(&stored).unwrap();
    assert_eq!(String::from_utf8(opened.payload).unwrap(), payload);
    assert!(opened.redacted.is_empty());
    (stored, found)
}

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
                text.extend(
                    char::from_u32(code)
                        .filter(|character| *character >= ' ' && !['"', '\\', '«', '»'].contains(character)),
                );
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
                4 | 5 => {
                    character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")))
                }
                _ if must => {
                    character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04X}")))
                }
                _ => text.push(character),
            }
        }
        text + "\""
    }

    /// A name, quotes included, that is none of these.
    fn other_name(&mut self, reserved: &[&str]) -> String {
        const NAMES: &[&str] = &[
            "x",
            "Email",
            "email ",
            "e-mail",
            "~",
            "/",
            "**",
            "~1",
            "a~1b",
            "$Seal",
            "$seal\u{0}",
            "$sealed",
            "0",
            "𝄞",
            "constructor",
        ];
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
                let items: Vec<String> = (0..self.pick(4))
                    .map(|_| format!("{}{}{}", self.space(), self.plain(depth - 1), self.space()))
                    .collect();
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
            2 => self
                .one_of(&["27182818284590452353", "-27182818284590452353.000e+10", "0.27182818284590452353E-9"])
                .to_owned(),
            3 => self.one_of(&["true", "false", "null", "\"\"", "0", "1e400", "{}", "[ ]", "\"\\ud800\""]).to_owned(),
            4 => {
                let items: Vec<String> = (0..=self.pick(3))
                    .map(|_| format!("{}{}{}", self.space(), self.secret(depth - 1), self.space()))
                    .collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let names = [CANARY, "$seal", "email", "email", "\\u0065mail"];
                let members: Vec<String> = (0..=self.pick(3))
                    .map(|_| {
                        format!(
                            "{}\"{}\"{}:{}{}",
                            self.space(),
                            self.one_of(&names),
                            self.space(),
                            self.secret(depth - 1),
                            self.space()
                        )
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

/// Another printer: members sorted up or down, with or without spaces.
fn print(value: &Value, reverse: bool, spaces: bool) -> String {
    let space = if spaces { " " } else { "" };
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(name, value)| (Value::from(name.as_str()).to_string(), value)).collect();
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if reverse {
                members.reverse();
            }
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{name}{space}:{space}{}", print(value, reverse, spaces)))
                .collect();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| print(item, reverse, spaces)).collect();
            format!("[{}]", items.join(&format!("{space},{space}")))
        }
        scalar => scalar.to_string(),
    }
}
