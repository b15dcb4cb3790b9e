//! Finds the header of a stored payload, or of stored metadata, without a plan and without keys, whatever the rest of
//! the document is.
//!
//! A seal names every key that it was made under. So whoever looks at every header has found every event of a key. This
//! module says "no header" only if that is certain.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, PersistedEvent};
use crate::json::scan::{ScanError, scan};
use crate::json::wanted::Wanted;
use crate::seal::detect::may_hold_header;
use crate::seal::format::{Header, HeaderError, MAX_STORED};
use crate::seal::token::read_token;

/// How every payload begins that this library sealed, up to the value of the member with the header.
const START: &[u8] = br#"{"$seal":"#;

/// The header of a stored payload; `None` if it is certain that the payload has none.
///
/// A payload that this library sealed begins with its header. Only that member is read then, so the header is found
/// even if the rest of the payload is damaged.
///
/// # Errors
/// [`Error::Event`] if there is a header that can't be read, or if there may be one and the payload can't be looked
/// through: it is cut off, nested too deep, too large, or has two members of that name.
pub(crate) fn find_header(event: EventRef<'_>) -> Result<Option<Header>> {
    let EventRef { event_id, text: payload, .. } = event;
    if let Some(token) = first_member(payload) {
        return read_header(event, token).map(Some);
    }
    if !may_hold_header(payload) {
        return Ok(None);
    }
    if payload.len() > MAX_STORED {
        return Err(Error::Event {
            event_id,
            fault: EventFault::LimitExceeded { what: "the stored payload's size in bytes", limit: MAX_STORED },
        });
    }
    let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
    match scan(payload, &Wanted::default()) {
        Ok(found) => found.seal.map(|seal| read_header(event, seal.value.of(payload))).transpose(),
        Err(ScanError::Duplicate { .. }) => Err(tampered("the root has two members with a header")),
        Err(ScanError::Syntax { .. }) => {
            Err(tampered("the payload is not valid JSON, and has the name of the member that holds the header"))
        }
        Err(error) => Err(error.in_event(event_id)),
    }
}

/// The headers of a stored event: of its payload, and of its metadata.
///
/// # Errors
/// Those of [`find_header`].
pub(crate) fn find_headers(event: &PersistedEvent) -> Result<[Option<Header>; 2]> {
    let of_metadata = |stored| find_header(stored).map_err(Error::in_metadata);
    Ok([find_header(event.as_stored())?, event.stored_metadata().map(of_metadata).transpose()?.flatten()])
}

/// The value of the first member, if that is a header as this library writes it, and nothing behind it can be another.
fn first_member(payload: &[u8]) -> Option<&[u8]> {
    let value = payload.strip_prefix(START).filter(|value| value.first() == Some(&b'"'))?;
    let end = memchr::memchr(b'"', value.get(1..)?)? + 2;
    (payload.len() <= MAX_STORED && !may_hold_header(&value[end..])).then_some(&value[..end])
}

/// Reads the value of the member with the header.
///
/// # Errors
/// [`EventFault::Tampered`] and [`EventFault::Unsupported`].
pub(crate) fn read_header(event: EventRef<'_>, token: &[u8]) -> Result<Header> {
    let event_id = event.event_id;
    let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
    let mut bytes = Vec::new();
    read_token(token, &mut bytes).ok_or_else(|| tampered("the header is not base64url"))?;
    Header::parse(bytes, event.document.into()).map_err(|error| match error {
        HeaderError::Unsupported { what, value } => {
            Error::Event { event_id, fault: EventFault::Unsupported { what, value } }
        }
        HeaderError::Malformed => tampered("the header is malformed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventDocument, EventType, EventVersion, aggregate};
    use crate::keys::names::KeyId;
    use crate::seal::format::{Document, EntryKind, Mode, write_core};
    use crate::seal::token::push_token;
    use uuid::Uuid;

    /// The key ids of the header that is found; `None` if there is certainly none.
    fn keys_of(payload: &[u8]) -> Result<Option<Vec<u128>>> {
        let (aggregate, event_type) = (aggregate("A", "1"), EventType::from("E"));
        let event = EventRef {
            aggregate: &aggregate,
            event_id: Uuid::nil(),
            event_type: &event_type,
            event_version: EventVersion::new(1),
            document: EventDocument::Payload,
            text: payload,
            beside: None,
        };
        Ok(find_header(event)?.map(|header| header.keys.iter().map(|key| key.0.as_u128()).collect()))
    }

    fn token() -> String {
        let keys = [KeyId(Uuid::from_u128(7))];
        let entries = [(0, EntryKind::Sealed, "/a")];
        let integrity = KeyId(Uuid::from_u128(9));
        let mut bytes = write_core(Document::Payload, Mode::Fields, &[1; 16], integrity, &keys, entries.into_iter());
        bytes.extend_from_slice(&[2; 48]);
        let mut token = Vec::new();
        push_token(&mut token, &bytes);
        String::from_utf8(token).unwrap()
    }

    #[test]
    fn a_header_is_found_wherever_it_is_and_however_it_is_spelled() {
        let token = token();
        for payload in [
            format!(r#"{{"$seal":{token},"a":"x"}}"#),
            format!("{{\"a\": \"x\",\n \"$seal\" :\t{token}}}"),
            format!(r#"  {{"\u0024seal":{token},"a":"x"}}"#),
            format!(r#"{{"note":"$seal","$s\u0065al":{token}}}"#),
            format!(r#"{{"$seal":{token},"note":"$seal"}}"#),
            // What is behind a header can be damaged.
            format!(r#"{{"$seal":{token},"a":"x"#),
            format!(r#"{{"$seal":{token}"#),
        ] {
            assert_eq!(keys_of(payload.as_bytes()).unwrap(), Some(vec![7]), "{payload}");
        }
    }

    #[test]
    fn no_header_is_said_only_where_that_is_certain() {
        for payload in ["", "{}", "[1]", "no JSON", r#"{"a":{"$seal":"AQ"}}"#, r#"{"a":"\u0024seal"}"#, r#"["$seal"]"#]
        {
            assert_eq!(keys_of(payload.as_bytes()).unwrap(), None, "{payload}");
        }
        let (token, deep) = (token(), "[".repeat(200));
        for payload in [
            r#"{"$seal":"AQ"}"#.to_owned(),
            r#"{"$seal":null}"#.to_owned(),
            r#"{"$seal":"a/b"}"#.to_owned(),
            format!(r#"{{"$seal":{token},"$seal":{token}}}"#),
            format!(r#"{{"$seal":{token},"\u0024seal":"AQ"}}"#),
            format!(r#"{{"a":1,"$seal":{token}"#),
            r#"{"$seal":"AQEA"#.to_owned(),
            format!(r#"{{"a":{deep},"$seal":{token}}}"#),
            r#"no JSON, but "$seal""#.to_owned(),
        ] {
            assert!(keys_of(payload.as_bytes()).is_err(), "{payload}");
        }
    }
}
