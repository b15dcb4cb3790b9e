//! Writes bytes as JSON strings, and reads them. The header and every ciphertext are such tokens.

use base64::Engine;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

/// Base64url without padding, with the vectors that the processor has.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
static BASE64URL: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::url_safe(base64::engine::general_purpose::NO_PAD));

/// Appends `bytes` to `out` as a JSON string of base64url without padding (RFC 4648, section 5).
pub(crate) fn push_token(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len() + 1;
    let length = token_length(bytes.len());
    out.push(b'"');
    out.resize(start + length - 2, 0);
    // The slice has exactly the right length, so this can't fail.
    let _ = BASE64URL.encode_slice(bytes, &mut out[start..]);
    out.push(b'"');
}

/// How many bytes [`push_token`] appends for `bytes` bytes.
pub(crate) fn token_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3) + 2
}

/// Decodes a token, and appends its bytes to `out`. Returns `None` if `text` is not exactly what [`push_token`] writes;
/// then what is appended means nothing.
pub(crate) fn read_token(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let start = out.len();
    out.resize(start + inner.len() * 3 / 4, 0);
    // The decoder refuses padding, other characters and stray trailing bits, so each token has one spelling.
    let length = BASE64URL.decode_slice(inner, &mut out[start..]).ok()?;
    out.truncate(start + length);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling() {
        for length in 0..300_u16 {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 77).to_le_bytes()[0]).collect();
            let mut token = Vec::new();
            push_token(&mut token, &bytes);
            assert_eq!(token.len(), token_length(bytes.len()));
            let mut read = vec![7];
            assert_eq!(read_token(&token, &mut read), Some(()));
            assert_eq!((read[0], &read[1..]), (7, &bytes[..]));
        }
        for wrong in ["", "\"", "AA", "\"AA==\"", "\"AB\"", "\"A+\"", "\"A\\u0041\"", "\"A\"", "null"] {
            assert_eq!(read_token(wrong.as_bytes(), &mut Vec::new()), None, "{wrong}");
        }
    }

    /// Long tokens are read many characters at a time.
    #[test]
    fn every_wrong_character_is_refused_at_every_place() {
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let mut token = Vec::new();
        push_token(&mut token, &[0; 150]);
        for place in 1..token.len() - 1 {
            for byte in 0..=u8::MAX {
                let mut changed = token.clone();
                changed[place] = byte;
                let read = read_token(&changed, &mut Vec::new());
                assert_eq!(read.is_some(), alphabet(byte), "{byte} at {place}");
            }
        }
    }
}
