//! The grammar of JSON: methods of the scanner that read a value and skip it. Nothing here knows which places are
//! wanted.
//!
//! Most of a document is skipped, so this is where a scan spends its time. An error is behind a pointer for that reason:
//! what these methods return fits into registers.

use crate::json::scan::strings::plain_prefix;
use crate::json::scan::{MAX_DEPTH, ScanError, Scanner};
use std::borrow::Cow;

/// A part of the document was read, or the scan failed.
pub(crate) type Read<T = ()> = Result<T, Box<ScanError>>;

/// The name of a member, as it is spelled between its quotes.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    spelled: &'a [u8],
    is_escaped: bool,
}

impl<'a> Name<'a> {
    /// The name without escapes. `None` for a name with a lone surrogate, which no wanted name has.
    pub(crate) fn plain(self) -> Option<Cow<'a, [u8]>> {
        if self.is_escaped {
            unescape(self.spelled).map(|name| Cow::Owned(name.into_bytes()))
        } else {
            Some(Cow::Borrowed(self.spelled))
        }
    }
}

impl<'a> Scanner<'a> {
    /// Skips a value in which nothing is wanted.
    #[inline]
    pub(crate) fn skip_value(&mut self) -> Read {
        match self.peek() {
            Some(b'{' | b'[') => self.skip_container(),
            _ => self.scalar(),
        }
    }

    /// Skips an object or array, without recursion.
    fn skip_container(&mut self) -> Read {
        // One bit per open container: set for an object.
        let mut objects = 0_u128;
        let outside = self.depth;
        'values: loop {
            // A value starts here.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    let is_object = open == b'{';
                    self.enter()?;
                    self.white_space();
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.leave()?;
                    } else {
                        objects = objects << 1 | u128::from(is_object);
                        if is_object {
                            self.skip_name()?;
                        }
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            // A value ended here.
            while self.depth > outside {
                self.white_space();
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.white_space();
                        if in_object {
                            self.skip_name()?;
                        }
                        continue 'values;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return self.fail(if in_object { "',' or '}' is expected" } else { "',' or ']' is expected" }),
                }
                objects >>= 1;
                self.leave()?;
            }
            return Ok(());
        }
    }

    /// Skips a value that is neither an object nor an array.
    #[inline]
    fn scalar(&mut self) -> Read {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.fail("a value is expected"),
        }
    }

    /// Reads the name of a member, up to its value.
    #[inline]
    pub(crate) fn member(&mut self) -> Read<Name<'a>> {
        if self.peek() != Some(b'"') {
            return self.fail("a member name or '}' is expected");
        }
        let text: &'a [u8] = self.text;
        let start = self.at + 1;
        let is_escaped = self.string()?;
        let spelled = &text[start..self.at - 1];
        self.colon()?;
        Ok(Name { spelled, is_escaped })
    }

    fn skip_name(&mut self) -> Read {
        if self.peek() != Some(b'"') {
            return self.fail("a member name is expected");
        }
        self.string()?;
        self.colon()
    }

    #[inline]
    fn colon(&mut self) -> Read {
        self.white_space();
        if self.peek() != Some(b':') {
            return self.fail("':' is expected");
        }
        self.at += 1;
        self.white_space();
        Ok(())
    }

    /// Reads a string. Returns whether it has escapes.
    #[inline]
    fn string(&mut self) -> Read<bool> {
        self.at += 1;
        self.at += plain_prefix(&self.text[self.at..]);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(false)
            }
            _ => self.escaped_string(),
        }
    }

    /// Reads on in a string, from its first escape.
    #[inline(never)]
    fn escaped_string(&mut self) -> Read<bool> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(true);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail("a control character in a string must be escaped"),
                None => return self.fail("a string does not end"),
            }
            self.at += plain_prefix(&self.text[self.at..]);
        }
    }

    fn escape(&mut self) -> Read {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u')
                if self.text.get(self.at + 2..self.at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                self.at += 6;
                Ok(())
            }
            _ => self.fail("an escape is invalid"),
        }
    }

    fn number(&mut self) -> Read {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Read {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.fail("a digit is expected") } else { Ok(()) }
    }

    fn literal(&mut self, literal: &'static [u8]) -> Read {
        if self.text[self.at..].starts_with(literal) {
            self.at += literal.len();
            Ok(())
        } else {
            self.fail("a value is expected")
        }
    }

    #[inline]
    pub(crate) fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    pub(crate) fn enter(&mut self) -> Read {
        if self.depth == MAX_DEPTH {
            return Err(ScanError::TooDeep.into());
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "ends the functions that can fail")]
    #[inline]
    pub(crate) fn leave(&mut self) -> Read {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    #[cold]
    pub(crate) fn fail<T>(&self, problem: &'static str) -> Read<T> {
        let problem = if self.at >= self.text.len() { "it ends too early" } else { problem };
        Err(ScanError::Syntax { offset: self.at, problem }.into())
    }
}

/// The text that a JSON string stands for. `raw` is the string without its quotes. `None` if it has a lone surrogate.
pub(crate) fn unescape(raw: &[u8]) -> Option<String> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}
