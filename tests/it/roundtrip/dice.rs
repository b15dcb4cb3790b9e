//! Documents at random.

use super::*;

/// Makes choices of bytes. When they are used up it chooses 0: the simplest.
pub(super) struct Dice<'a> {
    pub(super) bytes: &'a [u8],
    /// Only what `serde_json::Value` can hold outside protected values.
    pub(super) tame: bool,
}

impl Dice<'_> {
    pub(super) fn pick(&mut self, choices: usize) -> usize {
        let Some((byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*byte) % choices
    }

    pub(super) fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.pick(texts.len())]
    }

    pub(super) fn space(&mut self) -> &'static str {
        self.one_of(&["", "", "", " ", "\n", "\r\n\t", "     "])
    }

    pub(super) fn number(&mut self, wild: bool) -> &'static str {
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
    pub(super) fn characters(&mut self, wild: bool) -> String {
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
    pub(super) fn spell(&mut self, name: &str) -> String {
        let mut text = String::from("\"");
        for character in name.chars() {
            let must = character < ' ' || character == '"' || character == '\\';
            match self.pick(6) {
                3 if character == '/' => text.push_str("\\/"),
                4 | 5 => {
                    character
                        .encode_utf16(&mut [0; 2])
                        .iter()
                        .for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
                }
                _ if must => {
                    character
                        .encode_utf16(&mut [0; 2])
                        .iter()
                        .for_each(|unit| text.push_str(&format!("\\u{unit:04X}")));
                }
                _ => text.push(character),
            }
        }
        text + "\""
    }

    /// A name, quotes included, that is none of these.
    pub(super) fn other_name(&mut self, reserved: &[&str]) -> String {
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
    pub(super) fn plain(&mut self, depth: usize) -> String {
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

    pub(super) fn plain_member(&mut self, reserved: &[&str], depth: usize) -> String {
        let name = self.other_name(reserved);
        format!("{}{name}{}:{}{}{}", self.space(), self.space(), self.space(), self.plain(depth), self.space())
    }

    /// Any value that is protected; most hold a canary.
    pub(super) fn secret(&mut self, depth: usize) -> String {
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

    pub(super) fn id(&mut self) -> &'static str {
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

    pub(super) fn member(&mut self, name: &str, value: Document) -> Document {
        let mut member = vec![Segment::Plain(format!("{}{}:{}", self.spell(name), self.space(), self.space()))];
        member.extend(value);
        member
    }

    /// An object of these members and others, in any order.
    pub(super) fn object(&mut self, mut members: Vec<Document>, reserved: &[&str]) -> Document {
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

    pub(super) fn array(&mut self, items: Vec<Document>) -> Document {
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
    pub(super) fn protected(&mut self, owned: bool) -> Document {
        vec![if owned { Segment::Secret(self.secret(2)) } else { Segment::Plain("null".to_owned()) }]
    }

    #[expect(clippy::too_many_lines, reason = "one member after the other")]
    pub(super) fn document(&mut self) -> Document {
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

    pub(super) fn line(&mut self) -> Document {
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
