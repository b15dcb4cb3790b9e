//! Writes bytes as JSON strings, and reads them. The header and every ciphertext are such tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Appends `bytes` to `out` as a JSON string of base64url without padding (RFC 4648, section 5).
pub(crate) fn push_token(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len() + 1;
    let length = token_length(bytes.len());
    out.push(b'"');
    out.resize(start + length - 2, 0);
    // The slice has exactly the right length, so this can't fail.
    let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[start..]);
    out.push(b'"');
}

/// How many bytes [`push_token`] appends for `bytes` bytes.
pub(crate) fn token_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3) + 2
}

/// Decodes a token into `buffer`. Returns `None` if `text` is not exactly what [`push_token`] writes.
pub(crate) fn read_token(text: &[u8], buffer: &mut Vec<u8>) -> Option<()> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    buffer.clear();
    buffer.resize(inner.len() * 3 / 4, 0);
    // The decoder refuses padding, other characters and stray trailing bits, so each token has one spelling.
    let length = URL_SAFE_NO_PAD.decode_slice(inner, buffer).ok()?;
    buffer.truncate(length);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling() {
        let mut buffer = Vec::new();
        for length in 0..50 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut token = Vec::new();
            push_token(&mut token, &bytes);
            assert_eq!(token.len(), token_length(bytes.len()));
            assert_eq!(read_token(&token, &mut buffer), Some(()));
            assert_eq!(buffer, bytes);
        }
        for wrong in ["", "\"", "AA", "\"AA==\"", "\"AB\"", "\"A+\"", "\"A\\u0041\"", "\"A\"", "null"] {
            assert_eq!(read_token(wrong.as_bytes(), &mut buffer), None, "{wrong}");
        }
    }
}
