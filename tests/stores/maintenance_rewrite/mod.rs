//! Rewrite, on every database: a copy of a store whose events are of their current versions.

mod content;
mod failures;
mod large;
mod meanwhile;

use eventseal::maintenance::{RewriteOptions, Rewritten};
use eventseal::schema::{EventSchema, SplitPart, StepContext};
use eventseal::store::EventTable;
use eventseal::{
    Changes, EventStore, EventVersion, JsonPointer, NewEvent, Owner, PersistedEvent, Result, Schemas, SealedStore,
    Sealer, event, subject,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::backend::Backend;
use support::sealing::CANARY;
use support::{KEYRING, customer};

fn seller() -> Owner {
    subject("Customer", "/seller")
}

/// `Placed` moves `/name` to `/contact/name` and then is called `Ordered`; others are what can go wrong.
fn schemas() -> Schemas {
    let events = [
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/contact/name"], customer())
            .redact_as("/contact/name", "erased")
            .change(1, Changes::new().move_value("/name", "/contact/name").set_default("/currency", "EUR"))
            .upcast_metadata(1, |old: Option<Value>, _: &StepContext<'_>| {
                Ok::<_, Infallible>(old.map(|old| json!({ "old": old })))
            })
            .change(2, Changes::new().rename_type("Ordered", 1)),
        event("Ordered").version(1).protect(&["/contact/name"], customer()).redact_as("/contact/name", "gone"),
        event("Split").version(1).protect(&["/name"], customer()).split(1, &[("Counted", 1)], |_, _| {
            Ok::<_, Infallible>(vec![SplitPart::new("Counted", 1, json!({})), SplitPart::new("Counted", 1, json!({}))])
        }),
        event("One")
            .version(1)
            .split(1, &[("Counted", 1)], |_, _| Ok::<_, Infallible>(vec![SplitPart::new("Counted", 1, json!({}))])),
        event("Gone").version(1).drop_from(1),
        event("Counted").version(1),
        event("Vague")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/name"], customer())
            .upcast(1, |old: Value| Ok::<_, Infallible>(old)),
        event("Open").version(1).protect(&["/name"], customer()).version(2).unprotected("nobody looked").upcast(
            1,
            |mut old: Value| {
                old["greeting"] = json!(format!("Dear {}", old["name"].as_str().unwrap_or_default()));
                Ok::<_, Infallible>(old)
            },
        ),
        event("Broken").version(1).version(2).upcast(1, |_: Value| Err::<Value, _>("no")),
        event("Whole")
            .version(1)
            .protect_whole(Owner::Aggregate)
            .version(2)
            .protect_whole(Owner::Aggregate)
            .change(1, Changes::new()),
    ];
    Schemas::builder(events.into_iter().chain(of_two_owners()))
        .accept_plaintext("Placed")
        .accept_plaintext("Ordered")
        .allow_older_appends()
        .allow_unknown_types()
        .build()
        .unwrap()
}

/// Some of their values are of a customer, others of a seller.
fn of_two_owners() -> [EventSchema; 3] {
    [
        event("Two")
            .version(1)
            .protect(&["/a", "/both"], customer())
            .protect(&["/b"], seller())
            .version(2)
            .protect(&["/x/a", "/both"], customer())
            .protect(&["/x/b"], seller())
            .change(1, Changes::new().move_value("/a", "/x/a").move_value("/b", "/x/b")),
        event("Nameless")
            .version(1)
            .protect(&["/a"], customer())
            .protect(&["/b"], seller())
            .version(2)
            .protect(&["/a"], subject("Customer", "/ids/customer"))
            .protect(&["/b"], subject("Customer", "/ids/seller"))
            .change(1, Changes::new().remove("/customer").remove("/seller")),
        event("Wider")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/name"], customer())
            .protect(&["/note"], seller())
            .change(1, Changes::new()),
    ]
}

fn placed(customer: &str) -> NewEvent {
    let payload = format!("{{\"customer\" :\"{customer}\",\"name\":\"{CANARY} {customer}\",\"n\":1.50}}");
    NewEvent::raw("Placed", 1, payload)
        .with_metadata(r#"{"by":1}"#)
        .with_correlation_id("c")
        .with_created_at(time::OffsetDateTime::UNIX_EPOCH)
}

fn ordered(customer: &str) -> NewEvent {
    NewEvent::raw(
        "Ordered",
        1,
        format!("{{\"customer\":\"{customer}\",\"contact\":{{\"name\":\"{CANARY} {customer}\"}}}}"),
    )
}

fn small() -> RewriteOptions {
    let mut options = RewriteOptions::default();
    options.batch = 3;
    options
}

fn with(mut options: RewriteOptions, set: impl FnOnce(&mut RewriteOptions)) -> RewriteOptions {
    set(&mut options);
    options
}

async fn rewrite<B, S, T>(
    source: &B,
    store: &SealedStore<S>,
    copy: &B,
    target: &T,
    options: &RewriteOptions,
) -> Result<Rewritten>
where
    B: Backend,
    S: EventStore<Tx = B::Tx> + EventTable<Tx = B::Tx>,
    T: EventTable<Tx = B::Tx>,
{
    let (mut connection, mut other) = (source.connect().await.unwrap(), copy.connect().await.unwrap());
    store.rewrite(source.connection(&mut connection), target, copy.connection(&mut other), options, &mut |_| {}).await
}

/// The events that readers of the copy see, with the keys of the source.
async fn read_copy<B: Backend>(source: &B, copy: &B) -> Result<Vec<PersistedEvent>> {
    read_copy_by(source, copy, schemas()).await
}

async fn read_copy_by<B: Backend>(source: &B, copy: &B, schemas: Schemas) -> Result<Vec<PersistedEvent>> {
    let stored = copy.stored().await;
    let sealer = Sealer::new(B::Keys::default(), std::sync::Arc::clone(&KEYRING), schemas);
    let mut transaction = source.begin().await.unwrap();
    sealer.open(source.tx(&mut transaction), stored).await
}

/// Events as readers see them, whatever they are stored as.
fn seen(mut events: Vec<PersistedEvent>) -> Vec<PersistedEvent> {
    for event in &mut events {
        (event.stored_type, event.stored_version) = ("any".into(), EventVersion::new(1));
        let json = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).unwrap();
        event.metadata = event.metadata.as_ref().map(|metadata| json(metadata).to_string().into_bytes());
        event.redacted.sort_unstable();
    }
    events
}

fn stored_as(event: &PersistedEvent) -> (&str, u32) {
    (event.stored_type.as_str(), event.stored_version.get())
}

fn places(event: &PersistedEvent) -> Vec<&str> {
    event.redacted.iter().map(JsonPointer::as_str).collect()
}
