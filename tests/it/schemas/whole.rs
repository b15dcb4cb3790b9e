//! Payloads that are protected as a whole.

use super::seen;
use eventseal::schema::{SplitPart, StepContext};
use eventseal::{Owner, Sensitive, event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::world::World;

#[tokio::test]
async fn i4_an_erased_whole_payload_stays_readable_through_every_step() {
    #[derive(Serialize, Deserialize)]
    struct Named {
        name: Sensitive<String>,
    }
    let old = || event("Met").version(1).protect_whole(Owner::Aggregate).redact_as("", "old");
    let v2 = || old().version(2).protect_whole(Owner::Aggregate).redact_as("", json!({"gone": true}));
    let steps = || {
        [
            v2().upcast(1, |old: Named| Ok::<_, Infallible>(old)),
            v2().upcast(1, |old: Sensitive<Named>| Ok::<_, Infallible>(old)),
            v2().upcast_with(1, |old: Value, _| Ok::<_, Infallible>(json!({"name": old["name"].as_str().unwrap()}))),
        ]
    };
    let payload = r#"{"name":"Ada"}"#;
    for step in steps() {
        assert_eq!(seen(&World::after(old(), payload, &[], vec![step]).await), (json!({"name":"Ada"}), vec![]));
    }
    for step in steps() {
        let events = World::after(old(), payload, &[("Order", "1")], vec![step]).await;
        assert_eq!(seen(&events), (json!({"gone": true}), vec![""]));
        assert_eq!(events[0].event_version.get(), 2);
        assert!(events[0].decode::<Sensitive<Named>>().unwrap().is_redacted());
    }
    // Versions that protect fields: the redaction of the whole stays, to the end of the chain.
    let fields =
        old().version(2).protect(&["/name"], Owner::Aggregate).upcast(1, |old: Named| Ok::<_, Infallible>(old));
    let fields = fields
        .version(3)
        .protect(&["/called"], Owner::Aggregate)
        .upcast(2, |old: Value| Ok::<_, Infallible>(json!({"called": old["name"]})));
    let events = World::after(old(), payload, &[("Order", "1")], vec![fields]).await;
    assert_eq!((seen(&events), events[0].event_version.get()), ((json!("old"), vec![""]), 3));
    assert!(events[0].decode::<Sensitive<Named>>().unwrap().is_redacted());
    // A split has nothing to make parts of; the event comes as it is.
    let parts = |old: Value, _: &StepContext<'_>| {
        Ok::<_, Infallible>(vec![SplitPart::new("Part", 1, old.clone()), SplitPart::new("Part", 1, old)])
    };
    let schemas = || vec![old().split(1, &[("Part", 1)], parts), event("Part").version(1)];
    assert_eq!(World::after(old(), payload, &[], schemas()).await.len(), 2);
    let events = World::after(old(), payload, &[("Order", "1")], schemas()).await;
    assert_eq!((seen(&events), events[0].event_type.as_str()), ((json!("old"), vec![""]), "Met"));
    // An event that is dropped is not seen, erased or not.
    assert!(World::after(old(), payload, &[("Order", "1")], vec![old().drop_from(1)]).await.is_empty());
}

#[tokio::test]
async fn i7_steps_of_whole_payloads_work_on_any_json() {
    let old = || event("Met").version(1).protect_whole(Owner::Aggregate);
    let new = old().version(2).protect_same_as(1).upcast(1, |name: String| Ok::<_, Infallible>(name.to_uppercase()));
    assert_eq!(seen(&World::after(old(), r#""Ada""#, &[], vec![new]).await), (json!("ADA"), vec![]));
}
