//! The macro, wherever it is used.

use super::{OrderEvent, OrderPaid, OrderShipped, Shipping, placed, shipped, stored};
use eventseal::Events;
use eventseal::NewEvent;

mod elsewhere {
    //! The macro needs nothing in scope, and what the caller names otherwise is not mistaken for its own.
    #![allow(dead_code)]

    use super::{OrderPaid, OrderShipped};

    type Result = ();
    struct Box;
    struct Ok;
    trait Events {}

    #[derive(eventseal::Events)]
    pub(super) enum Event {
        Paid(OrderPaid),
        Shipped(OrderShipped),
        #[event(other)]
        Unknown(std::boxed::Box<eventseal::PersistedEvent>),
    }
    #[derive(eventseal::Events)]
    pub(super) enum Other {
        Paid(OrderPaid),
    }
}

#[test]
fn attributes_and_names_are_the_callers() {
    use elsewhere::{Event, Other};
    assert_eq!(Event::DECODES, [("OrderPaid", 1), ("OrderShipped", 1)]);
    assert!((Event::HAS_CATCH_ALL, Other::HAS_CATCH_ALL) == (true, false));
    assert!(matches!(Event::decode(&stored("X", 1, "{}")), Ok(Event::Unknown(_))));
    assert_eq!(OrderEvent::from(shipped()).clone(), OrderEvent::Shipped(shipped()));
    assert_eq!(format!("{:?}", OrderEvent::from(placed("a"))).matches("Sensitive(***)").count(), 2, "I9");
    let other = format!("{:?}", Shipping::decode(&stored("X", 1, "SECRET")).unwrap());
    assert!(other.contains("6 bytes") && !other.contains("SECRET"), "I9: {other}");
}

/// Payload types may have the names that macros like to use for themselves.
#[allow(non_camel_case_types, reason = "that is the point")]
mod names_of_macros {
    use serde::{Deserialize, Serialize};

    macro_rules! payloads {
        ($($name:ident)+) => {
            $(
                #[derive(Serialize, Deserialize)]
                pub(super) struct $name(u8);
                impl eventseal::Event for $name {
                    const TYPE: &'static str = stringify!($name);
                    const VERSION: u32 = 1;
                }
            )+
        };
    }
    // The derives of serde write `Ok(…)` and `Err(…)` as they are.
    payloads! { V E T S Event Payload Events Box Clone From Result Error PersistedEvent event payload visitor }

    #[derive(eventseal::Events)]
    pub(super) enum All {
        A(V),
        B(E),
        C(T),
        D(S),
        F(Event),
        G(Payload),
        H(Events),
        I(Box),
        J(Clone),
        K(From),
        L(Result),
        M(Error),
        N(PersistedEvent),
        O(event),
        P(payload),
        Q(visitor),
        #[event(other)]
        Other(std::boxed::Box<eventseal::PersistedEvent>),
    }

    pub(super) fn first() -> All {
        V(7).into()
    }
}

#[test]
fn a_payload_type_may_have_any_name() {
    let encoded = NewEvent::of(&names_of_macros::first()).unwrap();
    assert_eq!((encoded.event_type.as_str(), encoded.payload()), ("V", b"7".as_slice()));
    assert_eq!(names_of_macros::All::DECODES.len(), 16);
}
