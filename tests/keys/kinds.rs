//! Scope kinds that can be confused: with two of them, a shred would reach half of a person's data.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use eventseal::ExpectedVersion::Any;
use eventseal::error::InputFault;
use eventseal::memory::MemoryStore;
use eventseal::schema::{EventSchema, SchemaProblem};
use eventseal::{Changes, Error, EventStore, NewEvent, Owner, Schemas, SealedStore, aggregate, event, subject};
use support::world::World;

fn of(name: &str, kind: &str) -> EventSchema {
    event(name).version(1).protect(&["/text"], subject(kind, "/id"))
}

fn own(name: &str, kind: &str) -> EventSchema {
    event(name).version(1).protect(&["/text"], Owner::Aggregate.scope_kind(kind))
}

#[test]
fn similar_kinds_are_a_problem_that_names_both_and_where_they_are() {
    for other in ["customer", "Customer ", "Custo mer", "Customers", "Cutsomer", "Custmer", "Custoner"] {
        for second in [of("B", other), own("B", other), event("B").version(1).protect_whole(subject(other, "/id"))] {
            let errors = Schemas::new([of("A", "Customer"), second]).unwrap_err().errors;
            assert_eq!(errors.len(), 1, "{other}");
            let message = errors[0].to_string();
            let named = format!(r#"B version 1: its scope kind {other:?} is too similar to "Customer" of A version 1"#);
            assert!(message.starts_with(&named) && message.contains("distinct_kinds("), "{message}");
        }
    }
    // Within one type, and each pair once.
    let later =
        of("A", "Customer").version(2).protect(&["/text"], subject("customer", "/id")).change(1, Changes::new());
    let errors = Schemas::new([later, of("B", "customer"), of("C", "Customer")]).unwrap_err().errors;
    let similar = errors.iter().filter(|error| matches!(error.problem, SchemaProblem::SimilarKinds { .. }));
    assert_eq!(similar.map(|error| error.version).collect::<Vec<_>>(), [Some(2)]);
}

#[test]
fn kinds_that_differ_and_those_said_to_be_different_are_none() {
    let schemas =
        Schemas::new([of("A", "Customer"), of("B", "Guest"), own("C", "Customer"), of("D", "Consumer2")]).unwrap();
    assert_eq!(schemas.scope_kinds(), ["Consumer2", "Customer", "Guest"]);
    for (one, other) in [("Item", "Items"), ("Items", "Item")] {
        Schemas::builder([of("A", "Item"), of("B", "Items")]).distinct_kinds(one, other).build().unwrap();
    }
    assert!(
        Schemas::builder([of("A", "Item"), of("B", "Items"), of("C", "item")])
            .distinct_kinds("Item", "Items")
            .build()
            .is_err()
    );
}

/// The type of an aggregate is known when it is appended to.
#[tokio::test]
async fn an_aggregate_that_owns_values_is_not_called_almost_like_a_kind() {
    let world = World::new();
    let registered = || event("Registered").version(1).protect(&["/text"], Owner::Aggregate);
    let schemas = || Schemas::builder([registered(), of("Placed", "Customer"), event("Noted").version(1)]);
    let store = world.store(schemas().build().unwrap()).await;
    let append = async |store: &SealedStore<MemoryStore>, aggregate_type: &str, event_type: &str| {
        let event = NewEvent::raw(event_type, 1, r#"{"id":"42","text":"secret"}"#);
        store.append(&mut world.db.begin(), &aggregate(aggregate_type, "42"), Any, &[event]).await
    };
    for similar in ["customer", "Customers", "CUSTOMER"] {
        let error = append(&store, similar, "Registered").await.unwrap_err();
        assert!(
            matches!(&error, Error::Input(InputFault::SimilarKind { declared, .. }) if declared == "Customer"),
            "{error:?}"
        );
        assert!(error.to_string().contains("distinct_kinds("), "{error}");
        // If the aggregate owns no values, its name does not matter.
        append(&store, similar, "Placed").await.unwrap();
        append(&store, similar, "Noted").await.unwrap();
    }
    for apart in ["Customer", "Order"] {
        append(&store, apart, "Registered").await.unwrap();
    }
    let told = world.store(schemas().distinct_kinds("Customer", "Customers").build().unwrap()).await;
    append(&told, "Customers", "Registered").await.unwrap();
}
