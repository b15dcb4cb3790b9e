//! Encoding of typed events.

use super::{OrderEvent, Shipping, placed, stored};
use eventseal::Events;
use eventseal::error::{EventFault, InputFault};
use eventseal::{Error, NewEvent};
use serde::{Deserialize, Serialize};

#[test]
fn what_is_encoded_has_the_type_version_and_json_of_its_payload() {
    let event = NewEvent::of(&OrderEvent::from(placed("a"))).unwrap();
    assert_eq!((event.event_type.as_str(), event.event_version.get()), ("OrderPlaced", 2));
    let text = r#"{"customerId":"a","contact":{"email":"ada@example.org","phone":null},"giftNote":"for you"}"#;
    assert_eq!(String::from_utf8(event.payload().to_vec()).unwrap(), text);
    let again = placed("a").encode().unwrap();
    assert_eq!(
        (&again.event_type, again.event_version, again.payload()),
        (&event.event_type, event.event_version, event.payload())
    );
    assert_ne!(again.event_id, event.event_id);
}

#[test]
fn a_catch_all_is_not_appended_again() {
    let refund = stored("OrderRefunded", 1, r#"{"iban":"SECRET"}"#);
    let error = NewEvent::of(&Shipping::decode(&refund).unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Event { event_id, fault: EventFault::CatchAll { .. } } if event_id == refund.event_id)
    );
    assert!(
        text.contains("it::typed::Shipping has no variant for OrderRefunded") && !text.contains("SECRET"),
        "{text}"
    );
}

#[test]
fn what_is_no_json_is_not_encoded() {
    #[derive(Serialize, Deserialize)]
    struct Odd(#[serde(skip_deserializing)] std::collections::BTreeMap<(u8, u8), u8>);
    payload! { Odd: "Odd" version 1; }
    #[derive(eventseal::Events)]
    enum OddEvent {
        Odd(Odd),
    }
    let error = NewEvent::of(&OddEvent::from(Odd([((1, 2), 3)].into()))).unwrap_err();
    assert!(matches!(error, Error::Input(InputFault::Encode { .. })), "{error}");
}
