//! A position in a JSON text, and the words of the grammar: methods that read one thing and move on behind it.
//!
//! Most of a document is skipped, so this is where a scan spends its time. What is small is inlined, so that the
//! position stays in a register. What is not returns a new position, or an error behind a pointer: both fit into
//! registers.

use crate::json::scan::ScanError;
use crate::json::scan::strings::{plain_end, unescape};
use std::borrow::Cow;

/// Something was read, or the scan failed.
pub(crate) type Read<T = ()> = Result<T, Box<ScanError>>;

/// A position in a text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

/// The name of a member, as it is spelled between its quotes.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    spelled: &'a [u8],
    is_escaped: bool,
}

impl<'a> Name<'a> {
    /// The name without escapes. `None` for a name with a lone surrogate, which no wanted name has.
    #[inline]
    pub(crate) fn plain(self) -> Option<Cow<'a, [u8]>> {
        if self.is_escaped {
            unescape(self.spelled).map(|name| Cow::Owned(name.into_bytes()))
        } else {
            Some(Cow::Borrowed(self.spelled))
        }
    }
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes of the text are before this position.
    #[inline]
    pub(crate) fn at(self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(self) -> bool {
        self.at >= self.text.len()
    }

    /// The next byte. At the end of the text it is NUL, which nothing in the grammar begins with.
    #[inline(always)]
    pub(crate) fn peek(self) -> u8 {
        self.text.get(self.at).copied().unwrap_or_default()
    }

    /// Goes on behind the next byte. There must be one.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        self.at += 1;
    }

    /// Goes on behind white space, if there is some. Returns the next byte.
    #[inline(always)]
    pub(crate) fn space(&mut self) -> u8 {
        loop {
            let byte = self.peek();
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.pass();
        }
    }

    /// Reads the name of a member, up to its value. `expected` is the problem if there is none.
    #[inline(always)]
    pub(crate) fn name(&mut self, expected: &'static str) -> Read<Name<'a>> {
        if self.peek() != b'"' {
            return self.fail(expected);
        }
        let start = self.at + 1;
        self.at = plain_end(self.text, start);
        let is_escaped = self.peek() != b'"';
        if is_escaped {
            self.at = self.end_of_string()?;
        }
        let spelled = self.text.get(start..self.at).unwrap_or_default();
        self.pass();
        if self.space() != b':' {
            return self.fail("':' is expected");
        }
        self.pass();
        self.space();
        Ok(Name { spelled, is_escaped })
    }

    /// Reads a value that is neither an object nor an array, and begins with this byte.
    #[inline(always)]
    pub(crate) fn scalar(&mut self, first: u8) -> Read {
        match first {
            b'"' => {
                self.at = plain_end(self.text, self.at + 1);
                if self.peek() != b'"' {
                    self.at = self.end_of_string()?;
                }
                self.pass();
            }
            b'-' | b'0'..=b'9' => self.at = self.end_of_number()?,
            b't' => self.literal(b"true")?,
            b'f' => self.literal(b"false")?,
            b'n' => self.literal(b"null")?,
            _ => return self.fail("a value is expected"),
        }
        Ok(())
    }

    /// Reads on from where the plain part of a string ends. Returns the position of the quote at its end.
    #[inline(never)]
    fn end_of_string(mut self) -> Read<usize> {
        loop {
            match self.text.get(self.at) {
                Some(b'"') => return Ok(self.at),
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail("a control character in a string must be escaped"),
                None => return self.fail("a string does not end"),
            }
            self.at = plain_end(self.text, self.at);
        }
    }

    fn escape(&mut self) -> Read {
        self.at += match self.text.get(self.at..).unwrap_or_default() {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return self.fail("an escape is invalid"),
        };
        Ok(())
    }

    /// Reads a number. Returns the position behind it.
    #[inline(never)]
    fn end_of_number(mut self) -> Read<usize> {
        if self.peek() == b'-' {
            self.pass();
        }
        if self.peek() == b'0' {
            self.pass();
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.pass();
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.pass();
            if matches!(self.peek(), b'+' | b'-') {
                self.pass();
            }
            self.digits()?;
        }
        Ok(self.at)
    }

    #[inline(always)]
    fn digits(&mut self) -> Read {
        if !self.peek().is_ascii_digit() {
            return self.fail("a digit is expected");
        }
        while self.peek().is_ascii_digit() {
            self.pass();
        }
        Ok(())
    }

    #[inline(always)]
    fn literal(&mut self, literal: &'static [u8]) -> Read {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(literal)) {
            self.at += literal.len();
            Ok(())
        } else {
            self.fail("a value is expected")
        }
    }

    /// The error that something else is expected at this position.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail<T>(self, problem: &'static str) -> Read<T> {
        let problem = if self.is_at_end() { "it ends too early" } else { problem };
        Err(ScanError::Syntax { offset: self.at, problem }.into())
    }
}
