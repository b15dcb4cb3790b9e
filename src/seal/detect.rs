//! Recognises sealed payloads by their bytes, without keys and without a plan.

use crate::json::scan::{SEAL_MEMBER, ScanError, scan};
use crate::json::wanted::Wanted;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// May this document have a header? This is a quick text search. The answer `false` is certain, `true` is not.
pub(crate) fn may_hold_header(document: &[u8]) -> bool {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(SEAL_MEMBER));
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r"\u00"));
    let of_name = |start: usize| {
        let digits = document.get(start + 4..start + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        escaped.is_some_and(|byte| SEAL_MEMBER.as_bytes().contains(&byte))
    };
    // Another spelling of the name has at least one of its characters as an escape.
    NAME.find(document).is_some() || ESCAPE.find_iter(document).any(of_name)
}

/// Is this a sealed payload? It is one if its root object has a member `$seal`, because that name is reserved.
///
/// A `$seal` deeper in the document, or in a string, does not count. Bytes that are not JSON, or are JSON that was cut
/// off, count as sealed if they begin like a sealed payload.
///
/// # Errors
/// [`ScanError::TooDeep`] if the document is nested too deep to be scanned: then the answer is not known.
///
/// # Errors
/// [`ScanError::TooDeep`]: what can't be looked through can't be told from a sealed payload.
pub(crate) fn is_sealed(document: &[u8]) -> Result<bool, ScanError> {
    if !may_hold_header(document) {
        return Ok(false);
    }
    match scan(document, &Wanted::default()) {
        Ok(found) => Ok(found.seal.is_some()),
        Err(ScanError::Duplicate { .. }) => Ok(true),
        Err(error @ ScanError::TooDeep) => Err(error),
        Err(_) => Ok(begins_sealed(document)),
    }
}

/// Do the bytes begin as every payload does that this library sealed?
pub(crate) fn begins_sealed(document: &[u8]) -> bool {
    document.trim_ascii_start().starts_with(br#"{"$seal":""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_reserved_member_in_its_root_is_sealed_however_that_is_spelled() {
        for sealed in [
            r#"{"$seal":"AQ","a":1}"#,
            r#"{"a": {"b": 1}, "$seal": "AQ"}"#,
            r#"{"a":1,"\u0024seal":"AQ"}"#,
            r#"{"$s\u0065al":"AQ"}"#,
            r#"{"$sea\u006C":"AQ"}"#,
            r#"{"$sea\u006c" : null}"#,
            r#"{"$seal":"AQ","\u0024seal":"AQ"}"#,
            " {\"$seal\":\"AQ\",\"cut off",
        ] {
            assert_eq!(is_sealed(sealed.as_bytes()), Ok(true), "{sealed}");
        }
        for plain in [
            "",
            "null",
            r#""$seal""#,
            r#"["$seal"]"#,
            r#"{"a":{"$seal":"AQ"}}"#,
            r#"{"a":[{"\u0024seal":"AQ"}],"note":"$seal"}"#,
            r#"{"a$seal":1,"$seal ":2,"$Seal":3}"#,
            r#"{"\\u0024seal":1}"#,
            r#"{"note":"\u00e4\u0061\u00"#,
            r#"no JSON, but {"$seal":"AQ"}"#,
        ] {
            assert_eq!(is_sealed(plain.as_bytes()), Ok(false), "{plain}");
        }
        let deep = |inner: &str| format!(r#"{{"a":{}{inner}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(is_sealed(deep("1").as_bytes()), Ok(false));
        assert_eq!(is_sealed(deep(r#""$seal""#).as_bytes()), Err(ScanError::TooDeep));
    }
}
