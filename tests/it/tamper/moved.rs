//! Sealed values and headers that are moved to another place or event.

use super::{
    GIFTS, Header, JOINED, PAIR, PLACED, PLACED_BY_OTHERS, STATES, same_reading, seal, tampered, tokens, with_header,
    with_token, world,
};
use eventseal::error::EventFault;
use eventseal::{AggregateVersion, Error, EventVersion, NewEvent, PersistedEvent, aggregate};
use support::sealing::{SealerWorld, with_payload};

/// Events that differ from the first in one respect each, and of other shapes.
fn neighbours(world: &SealerWorld) -> Vec<PersistedEvent> {
    let elsewhere = world.seal(&aggregate("Order", "ord-2"), NewEvent::raw("Placed", 1, PLACED)).unwrap();
    vec![
        seal(world, "Placed", PLACED),
        seal(world, "Placed", PLACED),
        elsewhere,
        seal(world, "Moved", PLACED),
        seal(world, "Placed", PLACED_BY_OTHERS),
        seal(world, "Gifts", GIFTS),
        seal(world, "Joined", JOINED),
        seal(world, "Pair", PAIR),
    ]
}

#[test]
fn i3_i4_no_sealed_value_can_stand_in_another_place() {
    for state in STATES {
        let world = world();
        let events = neighbours(&world);
        state.bring_about(&world);
        for (target, event) in events.iter().enumerate() {
            let before = world.open(event).unwrap();
            for (place, _) in tokens(event) {
                let is_dead = before.redacted.iter().any(|redacted| redacted.as_str() == place);
                for (source, other) in events.iter().enumerate() {
                    for (origin, token) in tokens(other) {
                        let result = world.open(&with_token(event, place, &token));
                        let right = if (source, origin) == (target, place) || is_dead {
                            matches!(&result, Ok(opened) if same_reading(opened, &before))
                        } else {
                            tampered(&result)
                        };
                        assert!(
                            right,
                            "{state:?}: {origin} of event {source} at {place} of event {target}: {result:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn i3_i4_no_header_and_no_payload_can_be_given_to_another_event() {
    for state in STATES {
        let world = world();
        let events = neighbours(&world);
        state.bring_about(&world);
        for (target, event) in events.iter().enumerate() {
            for (source, other) in events.iter().enumerate().filter(|(source, _)| *source != target) {
                let context = format!("{state:?}: of event {source} on event {target}");
                let here: Vec<&str> = tokens(event).iter().map(|(place, _)| *place).collect();
                let there: Vec<&str> = tokens(other).iter().map(|(place, _)| *place).collect();
                let header = world.open(&with_header(event, &Header::of(other).bytes()));
                // A header that covers less than there is leaves the rest uncovered.
                if there.iter().all(|place| here.contains(place)) && there.len() < here.len() {
                    assert!(
                        matches!(header, Err(Error::Event { fault: EventFault::Unsealed { .. }, .. })),
                        "header {context}: {header:?}"
                    );
                } else {
                    assert!(tampered(&header), "header {context}: {header:?}");
                }
                // The payload as a whole fits the other's schema or not, but it is never opened.
                let payload = world.open(&with_payload(event, other.payload.clone()));
                assert!(tampered(&payload), "payload {context}: {payload:?}");
            }
        }
    }
}

#[test]
fn i3_i4_an_event_is_bound_to_what_names_it() {
    for state in STATES {
        let world = world();
        let placed = seal(&world, "Placed", PLACED);
        let mut evolved = seal(&world, "Evolved", PLACED);
        state.bring_about(&world);
        let before = world.open(&placed).unwrap();
        let altered = |alter: &dyn Fn(&mut PersistedEvent)| {
            let mut event = placed.clone();
            alter(&mut event);
            world.open(&event)
        };
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Order", "ord-2"))));
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Basket", "ord-1"))));
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Ord", "erord-1"))));
        assert!(tampered(&altered(&|event| event.event_id = uuid::Uuid::now_v7())));
        assert!(tampered(&altered(&|event| event.stored_type = "Moved".into())));
        // An unprotected type may have been protected once, so its headers are opened too.
        assert!(tampered(&altered(&|event| event.stored_type = "Open".into())));
        let unknown = altered(&|event| event.stored_type = "Unknown".into());
        assert!(
            matches!(unknown, Err(Error::Event { fault: EventFault::StillSealed { .. }, .. })),
            "an unknown type passes through, but not sealed"
        );
        assert!(matches!(
            altered(&|event| event.stored_version = EventVersion::new(2)),
            Err(Error::Event { fault: EventFault::NewerVersion { .. }, .. })
        ));
        assert!(matches!(
            altered(&|event| event.stored_version = EventVersion::new(0)),
            Err(Error::Event { fault: EventFault::UnknownVersion { .. }, .. })
        ));
        evolved.stored_version = EventVersion::new(2);
        assert!(tampered(&world.open(&evolved)), "a version of the same protection is another one nevertheless");
        // Values that the store assigns in the append are not bound.
        let renumbered = altered(&|event| {
            event.aggregate_version = AggregateVersion::FIRST.next();
            event.global_position = 99.try_into().unwrap();
        });
        assert_eq!(renumbered.unwrap().payload, before.payload);
    }
}
