//! Single bits of headers, sealed values and whole payloads.

use super::{
    Header, Part, STATES, State, edited, in_state, kind, protected, same_reading, tampered, text, token, tokens,
    with_header, with_token,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::Error;
use eventseal::error::EventFault;
use support::sealing::with_payload;

#[test]
fn i3_i4_no_bit_of_a_header_can_be_flipped() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            assert_eq!(before.is_redacted(), state != State::Live);
            let header = Header::of(stored);
            let bytes = header.bytes();
            let map = header.map();
            // In the half-shredded world, the first key of each event is gone.
            let is_dead = |key: usize| state == State::Shredded || state == State::Half && key == 0;
            let any_live = (0..header.keys.len()).any(|key| !is_dead(key));
            for (at, part) in map.iter().enumerate() {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    let value = flipped[at];
                    let result = world.open(&with_header(stored, &flipped));
                    let context =
                        || format!("{state:?}, {}, byte {at} ({part:?}), bit {bit}: {result:?}", stored.event_type);
                    let unsupported = |name: &str| {
                        matches!(
                            &result,
                            Err(Error::Event { fault: EventFault::Unsupported { what, value: found }, .. })
                                if *what == name && *found == value
                        )
                    };
                    let unchanged = || matches!(&result, Ok(opened) if *opened == before);
                    let right = match part {
                        Part::Format => unsupported("format"),
                        Part::Suite => unsupported("suite"),
                        Part::Document if value > 2 => unsupported("part"),
                        Part::Mode if value > 1 => unsupported("mode"),
                        // Then there is neither a commitment nor a tag that could say that the id is wrong. But
                        // the key that is named has no row, and that is no erasure.
                        Part::IntegrityKey if !any_live => {
                            matches!(result, Err(Error::Event { fault: EventFault::MissingKey { .. }, .. }))
                        }
                        // Nothing is redacted, so the tag says nothing.
                        Part::Tag if state == State::Live => unchanged(),
                        // A destroyed key commits to nothing any more.
                        Part::Commitment(key) if is_dead(*key) => unchanged(),
                        _ => tampered(&result),
                    };
                    assert!(right, "{}", context());
                }
            }
        }
    }
}

#[test]
fn i3_i4_no_bit_of_a_sealed_value_can_be_flipped() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            for (place, token) in tokens(stored) {
                let is_dead = before.redacted.iter().any(|redacted| redacted.as_str() == place);
                let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
                let open = |bytes: &[u8]| world.open(&with_token(stored, place, &URL_SAFE_NO_PAD.encode(bytes)));
                for at in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[at / 8] ^= 1 << (at % 8);
                    let result = open(&flipped);
                    // Values under a destroyed key can't be checked any more. They are redacted, whatever their bytes
                    // are.
                    let right = if is_dead {
                        matches!(&result, Ok(opened) if same_reading(opened, &before))
                    } else {
                        tampered(&result)
                    };
                    assert!(right, "{state:?}, {place}, bit {at}: {result:?}");
                }
                // Lengths that no sealed value has, whatever the key's state.
                for length in [0, 1, 15, 16, 17, 47, bytes.len() - 1] {
                    assert!(tampered(&open(&bytes[..length])), "{state:?}, {place}, {length} bytes");
                }
                assert!(tampered(&open(&[&bytes[..], &[0]].concat())));
                for spelling in [
                    format!("{token}="),
                    format!("{token}=="),
                    format!(" {token}"),
                    token.replace(['A', '-', '_'], "+"),
                    String::new(),
                ] {
                    let altered = with_token(stored, place, &spelling);
                    if altered.payload != edited(stored, |_| {}).payload {
                        assert!(tampered(&world.open(&altered)), "{state:?}, {place}, {spelling:?}");
                    }
                }
            }
        }
    }
}

/// The part of a stored payload to which a byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    /// Braces, brackets, colons, commas, quotes.
    Structure,
    SealName,
    Header,
    /// A name on the way to a protected place.
    ProtectedName,
    Token,
    /// Names and values that are not protected.
    Open,
}

fn regions(text: &str) -> Vec<Region> {
    let mut regions = vec![Region::Structure; text.len()];
    let mut at = 0;
    let mut last = "";
    while at < text.len() {
        let rest = &text[at..];
        if let Some(inner) = rest.strip_prefix('"') {
            let length = inner.find('"').unwrap();
            let string = &inner[..length];
            let is_name = inner[length + 1..].starts_with(':');
            let region = match string {
                "$seal" => Region::SealName,
                "email" | "courier" | "phone" | "lines" | "note" | "memo" if is_name => Region::ProtectedName,
                _ if !is_name && last == "$seal" => Region::Header,
                _ if !is_name && length > 60 => Region::Token,
                _ => Region::Open,
            };
            regions[at + 1..=at + length].fill(region);
            last = string;
            at += length + 2;
        } else {
            let length =
                rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
            regions[at..at + length].fill(Region::Open);
            at += length.max(1);
        }
    }
    regions
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of regions and verdicts")]
fn i3_i4_no_bit_of_a_stored_payload_changes_what_is_protected() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            let secrets = protected(&before.payload);
            let header = Header::of(stored);
            let map = header.map();
            let regions = regions(text(stored));
            for region in [Region::SealName, Region::Header, Region::ProtectedName, Region::Token, Region::Open] {
                assert!(regions.contains(&region), "the test has lost sight of {region:?}");
            }
            // With no live key to vouch for it, the integrity key's id could be another.
            let key_may_be_missing = state == State::Shredded || state == State::Half && header.keys.len() == 1;
            for (at, region) in regions.iter().enumerate() {
                for bit in 0..8 {
                    let mut payload = stored.payload.clone();
                    payload[at] ^= 1 << bit;
                    let altered = with_payload(stored, payload);
                    let result = world.open(&altered);
                    let context =
                        || format!("{state:?}, {}, byte {at} ({region:?}), bit {bit}: {result:?}", stored.event_type);
                    match &result {
                        Err(error) => {
                            let allowed: &[&str] = match region {
                                Region::Structure => &["InvalidPayload", "ShapeMismatch"],
                                Region::SealName => &["InvalidPayload", "Unsealed"],
                                Region::Header if key_may_be_missing => {
                                    &["InvalidPayload", "Tampered", "Unsupported", "MissingKey"]
                                }
                                Region::Header => &["InvalidPayload", "Tampered", "Unsupported"],
                                Region::ProtectedName | Region::Token => &["InvalidPayload", "Tampered"],
                                Region::Open => &["InvalidPayload"],
                            };
                            assert!(allowed.contains(&kind(error)), "{}", context());
                        }
                        Ok(opened) => {
                            assert_eq!(opened.redacted, before.redacted, "{}", context());
                            assert_eq!(protected(&opened.payload), secrets, "{}", context());
                            match region {
                                Region::Open => {}
                                // As with the decoded header, a byte that is not read changes nothing.
                                Region::Header => {
                                    assert_eq!(opened.payload, before.payload);
                                    let now = URL_SAFE_NO_PAD.decode(token(&altered, "/$seal").unwrap()).unwrap();
                                    let differs = |(index, part): (usize, &Part)| {
                                        (now[index] != header.bytes()[index]).then_some(*part)
                                    };
                                    let parts: Vec<Part> = map.iter().enumerate().filter_map(differs).collect();
                                    let unread = |part: &Part| match part {
                                        Part::Tag => state == State::Live,
                                        Part::Commitment(key) => {
                                            state == State::Shredded || state == State::Half && *key == 0
                                        }
                                        _ => false,
                                    };
                                    assert!(parts.iter().all(unread), "{parts:?} {}", context());
                                }
                                Region::Token => {
                                    assert!(state != State::Live, "{}", context());
                                    assert_eq!(opened.payload, before.payload, "{}", context());
                                }
                                _ => panic!("{}", context()),
                            }
                        }
                    }
                }
            }
        }
    }
}
