//! The grammar of JSON: methods of the scanner that read a value and skip it. Nothing here knows which places are
//! wanted.

use crate::json::scan::{MAX_DEPTH, ScanError, Scanner};
use std::borrow::Cow;

impl<'a> Scanner<'a> {
    /// Skips a value in which nothing is wanted, without recursion.
    pub(crate) fn skip_value(&mut self) -> Result<(), ScanError> {
        // One bit per open container: set for an object.
        let mut objects = 0_u128;
        let outside = self.depth;
        loop {
            // A value starts here.
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(open @ (b'{' | b'[')) => {
                    self.enter()?;
                    self.white_space();
                    let close = if open == b'{' { b'}' } else { b']' };
                    if self.peek() == Some(close) {
                        self.leave()?;
                    } else {
                        objects = objects << 1 | u128::from(open == b'{');
                        if open == b'{' {
                            self.skip_name()?;
                        }
                        continue;
                    }
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(_) => return self.fail("a value is expected"),
                None => return self.fail("it ends too early"),
            }
            // A value ended here.
            loop {
                if self.depth == outside {
                    return Ok(());
                }
                self.white_space();
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.white_space();
                        if in_object {
                            self.skip_name()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return self.fail(if in_object { "',' or '}' is expected" } else { "',' or ']' is expected" }),
                }
                objects >>= 1;
                self.leave()?;
            }
        }
    }

    /// Reads the name of a member, up to its value. `None` for a name with a lone surrogate, which no wanted name has.
    pub(crate) fn member(&mut self) -> Result<Option<Cow<'a, [u8]>>, ScanError> {
        if self.peek() != Some(b'"') {
            return self.fail("a member name or '}' is expected");
        }
        let text: &'a [u8] = self.text;
        let start = self.at + 1;
        let is_escaped = self.string()?;
        let name = &text[start..self.at - 1];
        self.colon()?;
        Ok(if is_escaped {
            unescape(name).map(|name| Cow::Owned(name.into_bytes()))
        } else {
            Some(Cow::Borrowed(name))
        })
    }

    fn skip_name(&mut self) -> Result<(), ScanError> {
        if self.peek() != Some(b'"') {
            return self.fail("a member name is expected");
        }
        self.string()?;
        self.colon()
    }

    fn colon(&mut self) -> Result<(), ScanError> {
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
    pub(crate) fn string(&mut self) -> Result<bool, ScanError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character in a string must be escaped"),
                None => return self.fail("a string does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanError> {
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

    fn number(&mut self) -> Result<(), ScanError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fail("a digit is expected"),
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

    fn digits(&mut self) -> Result<(), ScanError> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { self.fail("a digit is expected") } else { Ok(()) }
    }

    fn literal(&mut self, literal: &'static [u8]) -> Result<(), ScanError> {
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

    pub(crate) fn enter(&mut self) -> Result<(), ScanError> {
        if self.depth == MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "ends the functions that can fail")]
    pub(crate) fn leave(&mut self) -> Result<(), ScanError> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    pub(crate) fn fail<T>(&self, problem: &'static str) -> Result<T, ScanError> {
        let problem = if self.at >= self.text.len() { "it ends too early" } else { problem };
        Err(ScanError::Syntax { offset: self.at, problem })
    }
}

/// The number of bytes before the next quote, backslash or control character. Looks at eight bytes at a time.
#[inline]
fn plain_prefix(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const QUOTES: u64 = ONES * 0x22;
    const BACKSLASHES: u64 = ONES * 0x5c;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest set bit is right. The subtraction's borrow can only set wrong bits above it.
        let special =
            zero_byte(word ^ QUOTES) | zero_byte(word ^ BACKSLASHES) | (word.wrapping_sub(ONES * 0x20) & !word & HIGH);
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// The text that a JSON string stands for. `raw` is the string without its quotes. `None` if it has a lone surrogate.
pub(crate) fn unescape(raw: &[u8]) -> Option<String> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_length_ends_where_it_should() {
        for length in 0..40 {
            for end in ['"', '\\', '\u{1f}'] {
                let text = format!("{}{end}é\u{20}\u{7f}\"", "ä ~".repeat(length));
                assert_eq!(plain_prefix(text.as_bytes()), length * 4, "{text:?}");
            }
            assert_eq!(plain_prefix("x".repeat(length).as_bytes()), length);
        }
    }
}
