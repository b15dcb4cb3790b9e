//! The taint check: what it lets pass, and the mistakes that it catches.

mod typed;

use eventseal::error::BoxError;
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{Changes, NewEvent, Owner, Result, Schemas, Sensitive, aggregate, event, subject};
use eventseal_testing::{GoldenCorpus, GuardError, TaintCheck, TaintFinding, TaintProblem, Tainted};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fmt::Error as Never;
use uuid::Uuid;

fn customer() -> Owner {
    subject("Customer", "/customer_id")
}

/// `OrderPlaced`, whose e-mail address moves into `contact`, and whose guests stay where they are.
fn order() -> EventSchema {
    let guests = || subject("Guest", "/guests/*/id");
    event("OrderPlaced")
        .version(1)
        .protect(&["/email"], customer())
        .protect(&["/guests/*/name"], guests())
        .version(2)
        .protect(&["/contact"], customer())
        .protect(&["/guests/*/name"], guests())
}

fn moved(mut order: Value) -> Value {
    order["contact"] = json!({ "email": order["email"].take() });
    order.as_object_mut().unwrap().remove("email");
    order
}

fn with_step(step: fn(Value) -> Value) -> Schemas {
    Schemas::new([order().upcast(1, move |order: Value| Ok::<_, Never>(step(order)))]).unwrap()
}

fn sample() -> Value {
    json!({
        "customer_id": "cust_42", "email": "ada@example.org", "total": 990,
        "guests": [{ "id": "g1", "name": "Grace Hopper" }, { "id": "g2", "name": "Alan Turing" }]
    })
}

fn findings(result: Result<Tainted, GuardError>) -> Vec<TaintFinding> {
    match result {
        Err(GuardError::Taint { findings }) => findings,
        other => panic!("{other:?}"),
    }
}

/// The leaks that were found: the version, the target, and the places from which and to which a value leaked.
fn leaks(result: Result<Tainted, GuardError>) -> Vec<(u32, String, String, String)> {
    let leak = |finding: TaintFinding| match finding.problem {
        TaintProblem::Leak { target_type, target_version, pointer, protected } => {
            (finding.event_version.get(), format!("{target_type} {target_version}"), protected, pointer)
        }
        other => panic!("{other:?}"),
    };
    findings(result).into_iter().map(leak).collect()
}

fn leak(from: u32, to: &str, protected: &str, pointer: &str) -> (u32, String, String, String) {
    (from, to.to_owned(), protected.to_owned(), pointer.to_owned())
}

#[test]
fn right_steps_pass_with_samples_and_without() {
    let schemas = with_step(moved);
    for check in [TaintCheck::new(&schemas), TaintCheck::new(&schemas).sample("OrderPlaced", 1, sample())] {
        let tainted = check.check().unwrap();
        assert_eq!((tainted.steps, tainted.not_tainted.len()), (1, 0));
    }
    let removed =
        with_step(|order| json!({ "total": order["total"], "count": order["guests"].as_array().unwrap().len() }));
    assert_eq!(TaintCheck::new(&removed).check().unwrap().steps, 1);
    let declared = Changes::new().move_value("/email", "/contact/email").set_default("/late", false);
    let declared = Schemas::new([order().change(1, declared)]).unwrap();
    assert_eq!(TaintCheck::new(&declared).check().unwrap().steps, 1);
}

type Step = fn(Value) -> Value;

/// Steps that leak: the change of an order, the place that is protected, and the place to which the value leaks.
const COPIES: [(Step, &str, &str); 9] = [
    (
        |mut order| {
            order["search"] = order["email"].clone();
            moved(order)
        },
        "/email",
        "payload/search",
    ),
    (
        |mut order| {
            order["label"] = format!("Order of {}!", order["email"].as_str().unwrap().to_uppercase()).into();
            moved(order)
        },
        "/email",
        "payload/label",
    ),
    (
        |mut order| {
            order["domain"] = order["email"].as_str().unwrap().split('@').nth(1).unwrap().into();
            moved(order)
        },
        "/email",
        "payload/domain",
    ),
    (
        |mut order| {
            order["index"] = json!({ order["email"].as_str().unwrap(): 1 });
            moved(order)
        },
        "/email",
        "payload/index/",
    ),
    (
        |mut order| {
            order["first"] = order["guests"][0]["name"].clone();
            moved(order)
        },
        "/guests/*/name",
        "payload/first",
    ),
    (
        |mut order| {
            order["guests"][0]["greeting"] = format!("Dear {}", order["guests"][0]["name"]).into();
            moved(order)
        },
        "/guests/*/name",
        "payload/guests/0/greeting",
    ),
    // Forgotten at its old place.
    (
        |mut order| {
            order["contact"] = json!({ "email": order["email"] });
            order
        },
        "/email",
        "payload/email",
    ),
    // Beside a protected place with the same beginning.
    (
        |mut order| {
            order["contacts"] = json!([order["email"]]);
            moved(order)
        },
        "/email",
        "payload/contacts/0",
    ),
    // Moved to where nothing is protected.
    (
        |mut order| {
            order["contacts"] = json!([order["email"].take()]);
            order
        },
        "/email",
        "payload/contacts/0",
    ),
];

#[test]
fn a_step_that_copies_a_protected_value_is_caught() {
    for (step, protected, pointer) in COPIES {
        let schemas = with_step(step);
        for check in [TaintCheck::new(&schemas), TaintCheck::new(&schemas).sample("OrderPlaced", 1, sample())] {
            let found = leaks(check.check());
            assert!(!found.is_empty());
            for (from, to, from_place, to_place) in found {
                assert_eq!((from, to.as_str(), from_place.as_str()), (1, "OrderPlaced 2", protected), "{to_place}");
                assert!(to_place.starts_with(pointer), "{to_place} is not {pointer}");
            }
        }
    }
    let schemas = with_step(|order| json!({ "total": order["email"] }));
    let report = TaintCheck::new(&schemas).check().unwrap_err().to_string();
    let expected = r#"- the step from OrderPlaced version 1 to OrderPlaced version 2 copies what is protected at "/email" to "payload/total", which is not protected"#;
    assert!(report.contains(expected), "{report}");
}

#[test]
fn numbers_are_followed_too() {
    let schemas = |step: fn(Value) -> Value| {
        let paid = event("Paid")
            .version(1)
            .protect(&["/amount"], Owner::Aggregate)
            .version(2)
            .protect(&["/amount"], Owner::Aggregate);
        Schemas::new([paid.upcast(1, move |paid: Value| Ok::<_, Never>(step(paid)))]).unwrap()
    };
    let copied = schemas(
        |paid| json!({ "amount": paid["amount"], "sum": paid["amount"], "text": format!("EUR {}", paid["amount"]) }),
    );
    for amount in [json!(9), json!(9.5)] {
        let found = leaks(TaintCheck::new(&copied).sample("Paid", 1, json!({ "amount": amount })).check());
        let leak = |pointer| leak(1, "Paid 2", "/amount", pointer);
        assert_eq!(found, [leak("payload/sum"), leak("payload/text")]);
    }
    let right = schemas(|paid| json!({ "amount": paid["amount"] }));
    TaintCheck::new(&right).sample("Paid", 1, json!({ "amount": 9 })).check().unwrap();
}

#[test]
fn a_leak_further_on_is_the_fault_of_that_step() {
    let protect = |schema: EventSchema, version| schema.version(version).protect(&["/name"], Owner::Aggregate);
    let named = protect(protect(protect(event("Named"), 1), 2), 3)
        .upcast(1, |named: Value| Ok::<_, Never>(named))
        .upcast(2, |mut named: Value| {
            named["nick"] = named["name"].clone();
            Ok::<_, Never>(named)
        });
    let schemas = Schemas::new([named]).unwrap();
    for check in
        [TaintCheck::new(&schemas), TaintCheck::new(&schemas).sample("Named", 1, json!({ "name": "Ada Lovelace" }))]
    {
        let found = leaks(check.check());
        assert_eq!(found, [leak(2, "Named 3", "/name", "payload/nick")]);
    }
    let named = protect(protect(protect(event("Named"), 1), 2), 3)
        .upcast(1, |mut named: Value| {
            named["nick"] = named["name"].clone();
            Ok::<_, Never>(named)
        })
        .upcast(2, |named: Value| Ok::<_, Never>(named));
    let schemas = Schemas::new([named]).unwrap();
    assert_eq!(
        leaks(TaintCheck::new(&schemas).check()),
        [leak(1, "Named 2", "/name", "payload/nick")],
        "not that of the next one"
    );
}

#[test]
fn a_leak_is_named_by_the_places_of_the_step_and_once() {
    let named = event("Named").version(1).protect(&["/name"], Owner::Aggregate);
    let named = named
        .version(2)
        .protect(&["/person/name"], Owner::Aggregate)
        .version(3)
        .protect(&["/person/name"], Owner::Aggregate);
    let named = named.change(1, Changes::new().move_value("/name", "/person/name")).upcast(2, |mut named: Value| {
        named["nick"] = named["person"]["name"].clone();
        Ok::<_, Never>(named)
    });
    let schemas = Schemas::new([named]).unwrap();
    let check = TaintCheck::new(&schemas).sample("Named", 1, json!({ "name": "Ada Lovelace" }));
    let check = check.sample("Named", 2, json!({ "person": { "name": "Grace Hopper" } }));
    assert_eq!(leaks(check.check()), [leak(2, "Named 3", "/person/name", "payload/nick")], "version 2 has no /name");
}

#[test]
fn a_sample_of_which_nothing_can_be_replaced_is_told_from_what_is_elsewhere() {
    #[derive(Serialize, Deserialize)]
    struct Moved {
        from: Country,
        office: Country,
        copy: Option<Country>,
    }
    #[derive(Clone, Serialize, Deserialize)]
    enum Country {
        Germany,
        France,
    }
    let schemas = |step: fn(Moved) -> Moved| {
        let schema = event("Moved")
            .version(1)
            .protect(&["/from"], Owner::Aggregate)
            .version(2)
            .protect(&["/from"], Owner::Aggregate);
        Schemas::new([schema.upcast(1, move |old: Moved| Ok::<_, Never>(step(old)))]).unwrap()
    };
    let right = schemas(|old| old);
    let sample = |from: &str| json!({ "from": from, "office": "France" });
    for from in ["Germany", "France"] {
        let tainted = TaintCheck::new(&right).sample("Moved", 1, sample(from)).check().unwrap();
        assert_eq!(tainted.not_tainted.len(), usize::from(from == "France"), "{from}: {tainted:?}");
    }
    let copies = schemas(|old| Moved { copy: Some(old.from.clone()), ..old });
    let found = leaks(TaintCheck::new(&copies).sample("Moved", 1, sample("Germany")).check());
    assert_eq!(found, [leak(1, "Moved 2", "/from", "payload/copy")]);
}

#[test]
fn splits_drops_and_metadata_are_looked_at() {
    let registered = || event("Registered").version(1).protect(&["/name", "/mail"], Owner::Aggregate);
    let targets = || [event("Named").version(1).protect(&["/name"], Owner::Aggregate), event("Subscribed").version(1)];
    let split = registered().split(1, &[("Named", 1), ("Subscribed", 1)], |old, _| {
        let named = SplitPart::new("Named", 1, json!({ "name": old["name"] }));
        Ok::<_, Never>(vec![named, SplitPart::new("Subscribed", 1, json!({ "to": old["mail"] }))])
    });
    let schemas = Schemas::new([split].into_iter().chain(targets())).unwrap();
    assert_eq!(leaks(TaintCheck::new(&schemas).check()), [leak(1, "Subscribed 1", "/mail", "payload/to")]);

    let dropped = Schemas::new([registered().drop_from(1)]).unwrap();
    assert_eq!(TaintCheck::new(&dropped).check().unwrap().steps, 1);
    let whole =
        event("Scanned").version(1).protect_whole(Owner::Aggregate).version(2).protect(&["/text"], Owner::Aggregate);
    let whole = Schemas::new([whole.upcast(1, |mut old: Value| {
        old["copy"] = old["text"].clone();
        Ok::<_, Never>(old)
    })]);
    assert_eq!(leaks(TaintCheck::new(&whole.unwrap()).check()), [leak(1, "Scanned 2", "", "payload/copy")]);
}

#[test]
fn metadata_is_looked_at() {
    // A step of metadata does not see the payload: it takes somebody who remembers it.
    thread_local! { static LAST: RefCell<Value> = RefCell::default(); }
    let named = |version| event("Named").version(1).protect(&["/name"], Owner::Aggregate).version(version);
    let schema = named(2).protect_same_as(1).version(3).protect_same_as(1).upcast(1, |old: Value| {
        LAST.set(old["name"].clone());
        Ok::<_, Never>(old)
    });
    let schema = schema.upcast(2, |old: Value| Ok::<_, Never>(old));
    let right = schema.upcast_metadata(1, |_, _| Ok::<_, Never>(Some(json!({ "source": "web" }))));
    let schemas = |schema: EventSchema| Schemas::new([schema]).unwrap();
    let leaks_of = |schema| leaks(TaintCheck::new(&schemas(schema)).check());
    assert_eq!(
        leaks_of(right.upcast_metadata(2, |_, _| Ok::<_, Never>(Some(json!({ "by": [LAST.take()] }))))),
        [leak(2, "Named 3", "/name", "metadata/by/0")]
    );
}

#[test]
fn what_can_not_be_run_asks_for_a_sample() {
    let strict = |order: Value| {
        let total = order["total"].as_u64().ok_or("no total")?;
        let mut order = moved(order);
        order["total"] = total.into();
        Ok::<_, BoxError>(order)
    };
    let schemas = Schemas::new([order().upcast(1, strict)]).unwrap();
    let found = findings(TaintCheck::new(&schemas).check());
    assert_eq!(found.len(), 1);
    assert!(matches!(&found[0].problem, TaintProblem::NotRun { error } if error.contains("no total")), "{found:?}");
    assert!(found[0].to_string().contains(r#".sample("OrderPlaced", 1, json!(…))"#), "{}", found[0]);
    TaintCheck::new(&schemas).sample("OrderPlaced", 1, sample()).check().unwrap();

    let found = findings(TaintCheck::new(&schemas).sample("OrderPlace", 1, sample()).check());
    assert_eq!((found[0].event_type.as_str(), &found[0].problem), ("OrderPlace", &TaintProblem::NotRegistered));
}

#[test]
fn a_protected_place_without_a_value_is_made_up_or_asked_for() {
    let copies_names = |mut order: Value| {
        order["names"] = order["guests"].as_array().unwrap().iter().map(|guest| guest["name"].clone()).collect();
        moved(order)
    };
    let no_guests = json!({ "customer_id": "cust_42", "email": "ada@example.org", "guests": [] });
    let found = leaks(TaintCheck::new(&with_step(copies_names)).sample("OrderPlaced", 1, no_guests.clone()).check());
    assert_eq!(found, [leak(1, "OrderPlaced 2", "/guests/*/name", "payload/names/0")]);

    let refuses_guests = |order: Value| match order["guests"].as_array() {
        Some(guests) if guests.is_empty() => Ok(moved(order)),
        _ => Err("no guests, please"),
    };
    let schemas = Schemas::new([order().upcast(1, refuses_guests)]).unwrap();
    let found = findings(TaintCheck::new(&schemas).sample("OrderPlaced", 1, no_guests).check());
    assert_eq!(
        found.iter().map(|found| &found.problem).collect::<Vec<_>>(),
        [&TaintProblem::NoValue { pointer: "/guests/*/name".into() }]
    );
}

#[test]
fn what_can_not_be_tainted_is_said() {
    #[derive(Serialize, Deserialize)]
    struct Consent {
        given: bool,
        country: Country,
    }
    #[derive(Serialize, Deserialize)]
    enum Country {
        De,
        Fr,
    }
    let protect =
        |schema: EventSchema, version| schema.version(version).protect(&["/given", "/country"], Owner::Aggregate);
    let schema = protect(protect(event("Consented"), 1), 2).upcast(1, |old: Consent| Ok::<_, Never>(old));
    let tainted = TaintCheck::new(&Schemas::new([schema]).unwrap()).check().unwrap();
    let not_tainted: Vec<_> =
        tainted.not_tainted.iter().map(|(_, version, place)| (version.get(), place.as_str())).collect();
    assert_eq!(not_tainted, [(1, "/country"), (1, "/given")]);
}

#[test]
fn the_corpus_gives_samples() {
    let folder = tempfile::tempdir().unwrap();
    let strict = |order: Value| {
        let total = order["total"].as_u64().ok_or("no total")?;
        let mut order = moved(order);
        order["copied"] = json!({ "total": total, "to": order["contact"]["email"] });
        Ok::<_, BoxError>(order)
    };
    let schemas = || Schemas::new([order().upcast(1, strict)]).unwrap();
    let stored = NewEvent::json("OrderPlaced", 1, &sample()).unwrap();
    GoldenCorpus::open(folder.path(), schemas())
        .unwrap()
        .case("placed", &aggregate("Order", "1"), stored)
        .record()
        .unwrap();
    let corpus = GoldenCorpus::open(folder.path(), schemas()).unwrap();
    let found = leaks(TaintCheck::new(&schemas()).samples_of(&corpus).check());
    assert_eq!(found, [leak(1, "OrderPlaced 2", "/email", "payload/copied/to")]);
}

#[test]
fn a_sample_that_is_made_up_leaves_out_no_more_than_it_must() {
    /// Refuses every text.
    #[derive(Serialize)]
    struct Strict;
    impl<'de> Deserialize<'de> for Strict {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?;
            Err(serde::de::Error::custom("no"))
        }
    }
    #[derive(Serialize, Deserialize)]
    struct Person {
        code: Option<Strict>,
        number: u8,
        name: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize)]
    struct Registered {
        person: Option<Person>,
    }
    let schema =
        event("Registered").version(1).protect(&["/person/name"], Owner::Aggregate).version(2).protect_same_as(1);
    let schemas = Schemas::new([schema.upcast(1, |old: Registered| Ok::<_, Never>(old))]).unwrap();
    let tainted = TaintCheck::new(&schemas).check().unwrap();
    assert_eq!((tainted.steps, tainted.not_tainted.len()), (1, 0), "{tainted:?}");
}
