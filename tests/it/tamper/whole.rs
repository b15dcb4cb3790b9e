//! Payloads that are sealed as a whole.

use super::{Header, JOINED, Part, edited, seal, shred_all, tampered, text, token, with_header, world};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::error::EventFault;
use eventseal::{Error, PersistedEvent};
use serde_json::{Value, json};
use support::sealing::{SealerWorld, with_payload};

#[test]
fn i3_i4_a_whole_document_can_not_be_altered() {
    for shredded in [false, true] {
        let world = world();
        let stored = seal(&world, "Whole", "c4n4ry, and no JSON");
        let other = seal(&world, "Whole", "c4n4ry, and no JSON either");
        let fields = seal(&world, "Joined", JOINED);
        if shredded {
            shred_all(&world);
        }
        let before = world.open(&stored).unwrap();
        assert_eq!(before.redacted.len(), usize::from(shredded));
        assert_eq!(before.payload, if shredded { &b"null"[..] } else { b"c4n4ry, and no JSON" });
        let by_value = |edit: &dyn Fn(&mut Value)| world.open(&edited(&stored, edit));
        assert!(tampered(&by_value(&|value| value["x"] = json!(1))));
        assert!(tampered(&by_value(&|value| value["$Seal"] = json!(1))));
        assert!(tampered(&by_value(&|value| drop(value.as_object_mut().unwrap().remove("$sealed")))));
        assert!(tampered(&by_value(&|value| {
            value["sealed"] = value["$sealed"].take();
            value.as_object_mut().unwrap().remove("$sealed");
        })));
        for value_there in [json!(null), json!(1), json!("c4n4ry"), json!({}), json!("")] {
            assert!(tampered(&by_value(&|value| value["$sealed"] = value_there.clone())), "{value_there}");
        }
        let twice = text(&stored).replacen("\"$sealed\"", "\"$sealed\":\"x\",\"$sealed\"", 1);
        assert!(tampered(&world.open(&with_payload(&stored, twice))));
        let spaced = text(&stored).replace(':', " :\n").replace("$sealed", "\\u0024sealed");
        assert_eq!(world.open(&with_payload(&stored, spaced)).unwrap(), before);

        // The header is gone: plaintext is not accepted, whatever it is.
        for plain in [&b"c4n4ry"[..], b"", b"\xff", b"null", b"{}", b"{\"$sealed\":\"x\"}", b"[1]"] {
            assert!(matches!(
                &world.open(&with_payload(&stored, plain)),
                Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. })
                    if pointer.as_str().is_empty()
            ));
        }
        assert!(matches!(
            &by_value(&|value| drop(value.as_object_mut().unwrap().remove("$seal"))),
            Err(Error::Event { fault: EventFault::Unsealed { .. }, .. })
        ));
        // A header of fields does not do for the whole.
        let result = world.open(&with_payload(&stored, fields.payload.clone()));
        assert!(matches!(result, Err(Error::Event { fault: EventFault::Unsealed { .. }, .. })), "{result:?}");
        // Others' headers, values and documents.
        assert!(tampered(&world.open(&with_header(&stored, &Header::of(&other).bytes()))));
        assert!(tampered(&world.open(&with_payload(&stored, other.payload.clone()))));
        assert!(tampered(&world.open(&with_payload(&fields, stored.payload.clone()))));
        let swapped = by_value(&|value| value["$sealed"] = json!(token(&other, "/$sealed")));
        assert!(if shredded { swapped.unwrap() == before } else { tampered(&swapped) });

        no_bit_matters_less(&world, &stored, &before, shredded);
    }
}

/// Each bit of the header and of the value.
fn no_bit_matters_less(world: &SealerWorld, stored: &PersistedEvent, before: &PersistedEvent, shredded: bool) {
    let header = Header::of(stored);
    for (at, part) in header.map().iter().enumerate() {
        for bit in 0..8 {
            let mut flipped = header.bytes();
            flipped[at] ^= 1 << bit;
            let result = world.open(&with_header(stored, &flipped));
            let right = match (part, &result) {
                (Part::Tag, Ok(opened)) => !shredded && *opened == *before,
                (Part::Commitment(_), Ok(opened)) => shredded && *opened == *before,
                // Mode 0 is a header of fields with an entry at the root: no such thing.
                (
                    Part::Format | Part::Suite | Part::Document | Part::Mode,
                    Err(Error::Event { fault: EventFault::Unsupported { .. }, .. }),
                ) => true,
                (Part::Document | Part::Mode, Err(Error::Event { fault: EventFault::Tampered { .. }, .. })) => {
                    flipped[at] <= 2
                }
                (Part::IntegrityKey, Err(Error::Event { fault: EventFault::MissingKey { .. }, .. })) => shredded,
                (
                    Part::Salt
                    | Part::IntegrityKey
                    | Part::Key
                    | Part::Counts
                    | Part::Entry
                    | Part::Tag
                    | Part::Commitment(_),
                    result,
                ) => {
                    matches!(result, Err(Error::Event { fault: EventFault::Tampered { .. }, .. }))
                }
                _ => false,
            };
            assert!(right, "shredded: {shredded}, {part:?}, bit {bit}: {result:?}");
        }
    }
    let bytes = URL_SAFE_NO_PAD.decode(token(stored, "/$sealed").unwrap()).unwrap();
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let result =
            world.open(&edited(stored, |value: &mut Value| value["$sealed"] = json!(URL_SAFE_NO_PAD.encode(&flipped))));
        assert!(if shredded { result.unwrap() == *before } else { tampered(&result) });
    }
}
