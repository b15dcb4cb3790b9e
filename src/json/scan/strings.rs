//! The strings of JSON: where the plain part of one ends, many bytes at a time, and what one stands for.

/// Each byte of a word is one.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte of a word.
const HIGH: u64 = 0x8080_8080_8080_8080;
/// How many bytes of a long string are looked at together.
const BLOCK: usize = 64;

/// How many words of a string are looked at before it counts as long.
const WORDS: usize = 8;

/// The position of the first quote, backslash or control character from `at` on, or the end of the text.
///
/// Most strings end in their first words. A long one, such as a ciphertext, is looked through in blocks.
#[inline(always)]
pub(super) fn plain_end(text: &[u8], at: usize) -> usize {
    let mut rest = text.get(at..).unwrap_or_default();
    for _ in 0..WORDS {
        let Some((word, behind)) = rest.split_first_chunk() else { break };
        let special = special_in(u64::from_le_bytes(*word));
        if special != 0 {
            return text.len() - rest.len() + special.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    text.len() - rest.len() + plain_prefix(rest)
}

/// The length of the plain part of what is left of a long string, or of the last bytes of the document.
#[inline(never)]
fn plain_prefix(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<BLOCK>();
    // The compiler makes vectors of this.
    let is_plain = |block: &&[u8; BLOCK]| !block.iter().fold(false, |found, byte| found | is_special(*byte));
    let mut rest = &text[blocks.iter().take_while(is_plain).count() * BLOCK..];
    while let Some((word, behind)) = rest.split_first_chunk() {
        let special = special_in(u64::from_le_bytes(*word));
        if special != 0 {
            return text.len() - rest.len() + special.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    text.len() - rest.len() + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

/// Is this a quote, a backslash or a control character?
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// A word whose lowest bit that is set is the highest bit of the first special byte. Zero if no byte is special.
///
/// A byte is subtracted from with borrow from the byte below it. So what is above the first special byte may be wrong.
const fn special_in(word: u64) -> u64 {
    // This exchanges 0x22, the quote, and 0x20. So the quote is less than 0x21 like the control characters, and nothing
    // else is.
    let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGH
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
        for length in 0..200 {
            for end in ['"', '\\', '\u{1f}', '\0'] {
                let text = format!("{}{end}é\u{20}\u{7f}\"", "ä ~".repeat(length));
                assert_eq!(plain_end(text.as_bytes(), 0), length * 4, "{text:?}");
            }
            assert_eq!(plain_end("x".repeat(length).as_bytes(), 0), length);
        }
    }

    /// At each place of a word and of a block, behind each number of whole words and blocks.
    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for place in 0..300 {
            for byte in 0..=u8::MAX {
                let mut text = vec![b'a'; 320];
                text[place] = byte;
                let expected = if is_special(byte) { place } else { 320 };
                assert_eq!(plain_end(&text, 0), expected, "{byte} at {place}");
                assert_eq!(plain_prefix(&text), expected, "{byte} at {place}");
                assert_eq!(plain_end(&text[..=place], 0), expected.min(place + 1), "{byte} at the end, at {place}");
            }
        }
    }

    /// The subtractions borrow from the next byte. So each pair of bytes is looked at.
    #[test]
    fn no_byte_hides_the_one_before_it_or_behind_it() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let text = [b'a', first, second, b'a', b'a', b'a', b'a', b'a', b'a'];
                let expected = text.iter().position(|byte| is_special(*byte)).unwrap_or(text.len());
                assert_eq!(plain_end(&text, 0), expected, "{text:?}");
            }
        }
    }
}
