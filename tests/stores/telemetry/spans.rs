//! Spans: their fields, their levels, and what is not in them.

use super::*;
use eventseal::ExpectedVersion::Any;
use eventseal::keys::RewrapOptions;
use eventseal::{EventFilter, EventStore, GlobalPosition, aggregate};
use seen::Noted;
use support::backend::Backend;
use support::{customer_scope, on_every_database};
use tracing::Level;

on_every_database! {
    spans_have_the_fields_that_operators_filter_by,
    a_failed_call_says_so_in_its_span,
    a_busy_service_is_quiet_at_info,
    i9_no_id_and_no_value_is_in_a_span_or_a_metric,
}

async fn spans_have_the_fields_that_operators_filter_by<B: Backend>() {
    let seen = Seen::default();
    let _listening = seen.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    seen.take();
    db.append(&store, "1", &[placed("42"), noted()]).await;
    let span = seen.span("eventseal.append");
    let fields = ["aggregate_type", "events", "sealed"].map(|name| span.field(name).unwrap().to_owned());
    assert_eq!((fields, span.level), (["Order", "2", "1"].map(str::to_owned), Level::DEBUG));
    assert_eq!((span.target, span.field("error_kind")), ("eventseal::store", None));
    assert!(!span.field("namespace").unwrap().is_empty());

    let reading = ["events", "redacted", "unreadable"];
    let read = |span: &Noted| reading.map(|name| span.field(name).unwrap().parse::<u64>().unwrap());
    db.read(&store, "1").await.unwrap();
    let span = seen.span("eventseal.read_stream");
    assert_eq!((read(&span), span.field("aggregate_type")), ([2, 0, 0], Some("Order")));
    db.shred(&store, "42").await;
    let shredded = seen.take();
    let span = shredded.iter().find(|noted| noted.name == "eventseal.shred").unwrap();
    assert_eq!((span.field("scope_kind"), span.level), (Some("Customer"), Level::INFO));
    let said = shredded.iter().find(|noted| !noted.is_span && noted.fields.contains_key("scope_id")).unwrap();
    assert_eq!((said.inside, said.field("scope_id")), (Some("eventseal.shred"), Some("42")));
    assert_eq!((said.field("keys"), said.level), (Some("1"), Level::INFO));

    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    store.read_events(tx, GlobalPosition::START, 10, &EventFilter::default()).await.unwrap();
    let span = seen.span("eventseal.read_page");
    assert_eq!((read(&span), span.field("limit")), ([2, 1, 0], Some("10")));
    let kek = store.keys().rotate_kek(tx, "default").await.unwrap();
    let rotated = seen.take();
    let span = rotated.iter().find(|noted| noted.name == "eventseal.rotate_kek").unwrap();
    assert_eq!((span.field("partition"), span.level), (Some("default"), Level::INFO));
    let said = rotated.iter().find(|noted| !noted.is_span && noted.fields.contains_key("old_kek_id")).unwrap();
    assert_eq!(said.field("kek_id"), Some(&*kek.kek_id.to_string()));
    store.keys().rewrap(tx, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
    let span = seen.span("eventseal.rewrap");
    assert_eq!((span.field("partition"), span.field("dry_run")), (None, Some("false")));
    store.keys().retire_kek(tx, kek.kek_id).await.unwrap_err();
    let span = seen.span("eventseal.retire_kek");
    assert_eq!((span.field("kek_id"), span.field("error_kind")), (Some(&*kek.kek_id.to_string()), Some("kek_in_use")));
}

async fn a_failed_call_says_so_in_its_span<B: Backend>() {
    let seen = Seen::default();
    let _listening = seen.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    db.append(&store, "1", &[placed("42")]).await;
    db.disable(&store, "42").await;
    seen.take();
    db.read(&store, "1").await.unwrap_err();
    let noted = seen.take();
    let span = noted.iter().find(|noted| noted.name == "eventseal.read_stream").unwrap();
    assert_eq!((span.field("error_kind"), span.field("unreadable")), (Some("disabled"), Some("1")));
    let warned = noted.iter().find(|noted| noted.level == Level::WARN).unwrap();
    assert_eq!((warned.inside, warned.field("error_kind")), (Some("eventseal.read_stream"), Some("disabled")));
    db.try_append(&store, "1", &[placed("42")]).await.unwrap_err();
    let span = seen.span("eventseal.append");
    assert_eq!((span.field("error_kind"), span.field("sealed")), (Some("disabled"), None));
}

async fn a_busy_service_is_quiet_at_info<B: Backend>() {
    let seen = Seen::default();
    let _listening = seen.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let loud = || seen.take().into_iter().filter(|noted| noted.level <= Level::INFO).collect::<Vec<_>>();
    assert!(!loud().is_empty(), "the first key is worth a line");
    for customer in ["42", "43"] {
        db.append(&store, customer, &[placed(customer), noted()]).await;
        db.read(&store, customer).await.unwrap();
        db.read_log(&store).await.unwrap();
    }
    let loud = loud();
    assert!(loud.is_empty(), "{loud:?}");
}

async fn i9_no_id_and_no_value_is_in_a_span_or_a_metric<B: Backend>() {
    const ORDER: &str = "ord-31415926";
    const CUSTOMER: &str = "cust-2718281";
    let (recorded, seen) = (Recorded::default(), Seen::default());
    let (_recording, _listening) = (recorded.listen(), seen.listen());
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let appended = db.append(&store, ORDER, &[placed(CUSTOMER), noted()]).await;
    let reader = db.process(schemas());
    db.read(&reader, ORDER).await.unwrap();
    db.read_log(&reader).await.unwrap();
    let scope = customer_scope(CUSTOMER);
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let sealed = store.seal_value(tx, &scope, ["users", "name"], NAME).await.unwrap();
    store.open_value(tx, &scope, ["users", "name"], &sealed).await.unwrap();
    store.keys().rotate_data_key(tx, &scope).await.unwrap();
    db.commit(transaction).await.unwrap();
    db.disable(&store, CUSTOMER).await;
    db.read(&store, ORDER).await.unwrap_err();
    db.try_append(&store, ORDER, &[placed(CUSTOMER)]).await.unwrap_err();
    db.enable(&store, CUSTOMER).await;
    db.shred(&store, CUSTOMER).await;
    db.read(&store, ORDER).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    let order = aggregate("Order", ORDER);
    store.append(db.tx(&mut transaction), &order, Any, &[placed(CUSTOMER)]).await.unwrap_err();
    db.roll_back(transaction).await;

    let event_id = appended[0].event_id.to_string();
    let ids = [ORDER, CUSTOMER, &*event_id, NAME];
    let noted = seen.take();
    let named: Vec<&str> = noted.iter().filter(|noted| noted.is_span).map(|noted| noted.name).collect();
    for name in ["append", "read_stream", "read_page", "seal_values", "shred", "disable", "rotate_data_key", "kms"] {
        assert!(named.contains(&&*format!("eventseal.{name}")), "{name} was not seen: {named:?}");
    }
    for span in noted.iter().filter(|noted| noted.is_span) {
        for (field, value) in &span.fields {
            assert!(!ids.iter().any(|id| value.contains(id)), "{}: {field} is {value:?}", span.name);
        }
    }
    for said in noted.iter().filter(|noted| !noted.is_span) {
        assert!(!format!("{said:?}").contains(NAME), "{said:?}");
    }
    let recorded = recorded.text();
    assert!(recorded.contains("eventseal_upcast_steps_total") && recorded.contains("Placed"));
    for id in ids {
        assert!(!recorded.contains(id), "{id} is in a metric");
    }
}
