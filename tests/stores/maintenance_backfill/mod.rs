//! Backfill, on every database: events that were stored in the clear are sealed in place.

mod content;
mod failures;
mod meanwhile;

use eventseal::maintenance::{BackfillOptions, CensusOptions};
use eventseal::schema::EventSchema;
use eventseal::{EventStore, ExpectedVersion, NewEvent, Owner, Schemas, aggregate, event};
use support::backend::Backend;
use support::customer;
use support::sealing::CANARY;

fn types() -> [EventSchema; 3] {
    [
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/name", "/lines/*/text"], customer())
            .protect(&["/note"], Owner::Aggregate)
            .redact_as("/name", "erased")
            .upcast(1, Ok::<serde_json::Value, std::convert::Infallible>),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("Counted").version(1),
    ]
}

fn accepting() -> Schemas {
    Schemas::builder(types())
        .accept_plaintext("Placed")
        .accept_plaintext("Whole")
        .allow_unknown_types()
        .build()
        .unwrap()
}

fn strict() -> Schemas {
    Schemas::builder(types()).allow_unknown_types().build().unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw(
        "Placed",
        2,
        format!(
            "{{ \"customer\":\"{customer}\", \"name\" : \"{CANARY} \
             \\u0041da\",\"total\":1.0,\r\n\"lines\":[{{\"text\":\"{CANARY}\"}},{{\"text\":1e400}},{{}}]}}"
        ),
    )
    .with_metadata(r#"{"by":"import"}"#)
    .with_correlation_id("c")
}

fn every() -> CensusOptions {
    let mut options = CensusOptions::default();
    options.every_payload = true;
    options
}

fn with(mut options: BackfillOptions, set: impl FnOnce(&mut BackfillOptions)) -> BackfillOptions {
    set(&mut options);
    options
}

fn small() -> BackfillOptions {
    let mut options = BackfillOptions::default();
    options.batch = 2;
    options
}

fn erasing() -> BackfillOptions {
    let mut options = small();
    options.erase_shredded = true;
    options
}

async fn in_transaction<B: Backend>(db: &B) -> B::Transaction {
    let mut transaction = db.begin().await.unwrap();
    let store = B::Store::default();
    store
        .append(
            db.tx(&mut transaction),
            &aggregate("Order", "open"),
            ExpectedVersion::Any,
            &[NewEvent::raw("Counted", 1, "{}")],
        )
        .await
        .unwrap();
    transaction
}
