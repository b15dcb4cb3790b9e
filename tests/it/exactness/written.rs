//! Values that JSON can't express are refused; all others are written as serde_json writes them.

use super::{customer, object, problem, try_append};
use eventseal::error::EventFault;
use eventseal::{Changes, Error, NewEvent, Schemas, Sensitive, event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use support::world::*;

#[test]
fn what_would_not_be_read_as_it_was_passed_is_refused() {
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Weight { weight: Sensitive<f64> },
        Pair(BTreeMap<String, f32>),
    }
    #[derive(Serialize)]
    struct Flat<T> {
        #[serde(flatten)]
        rest: T,
    }
    #[derive(Serialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        Pair(u8, Sensitive<f64>),
    }
    #[derive(Serialize)]
    enum Outer {
        Inner(Tagged),
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let weight = || Tagged::Weight { weight: number.into() };
        for (place, problem) in [
            ("the root", problem(&number)),
            ("/0/a~1b", problem(&[BTreeMap::from([("a/b", number)])])),
            ("/weights/1", problem(&object("weights", Sensitive::from(vec![1.0, number])))),
            ("/a", problem(&object("a", Sensitive::from(Some(number))))),
            ("/a", problem(&object("a", Some(Sensitive::from(number))))),
            ("/weight", problem(&weight())),
            ("/Inner/weight", problem(&Outer::Inner(weight()))),
            ("/weight", problem(&Flat { rest: weight() })),
            ("/x/weight", problem(&Flat { rest: BTreeMap::from([("x", weight())]) })),
            ("/c/1", problem(&Adjacent::Pair(1, number.into()))),
            ("/x", problem(&Tagged::Pair(BTreeMap::from([("x".to_owned(), number as f32)])))),
        ] {
            assert!(problem.starts_with(&format!("the float at {place} is not finite")), "{problem}");
        }
    }
    for problem in [
        problem(&object("a", Sensitive::<String>::Redacted)),
        problem(&object("a", Some(Sensitive::<String>::Redacted))),
        problem(&object("a", Sensitive::Present(Sensitive::<u8>::Redacted))),
        problem(&Flat { rest: object("a", Sensitive::<u8>::Redacted) }),
    ] {
        assert!(problem.contains("is redacted: what was shredded has no value"), "{problem}");
    }
    for problem in [
        problem(&object("a", Some(Sensitive::Present(None::<u8>)))),
        problem(&object("a", Some(Sensitive::Present(())))),
        problem(&object("a", Sensitive::Present(Some(None::<u8>)))),
        problem(&object("a", Sensitive::Present(Some(())))),
    ] {
        assert!(problem.starts_with("the Some at /a would be written as null"), "{problem}");
    }
}

#[test]
fn a_member_that_would_be_written_twice_is_refused() {
    #[derive(Serialize)]
    struct Collides {
        total: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let problem = problem(&Collides { total: 1, rest: object("total", 2) });
    assert!(problem.starts_with("the member /total would be written twice"), "{problem}");
}

/// All sorts of values, as serde_json writes them.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of values")]
fn what_json_can_say_is_written_as_serde_json_writes_it() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype(Sensitive<u8>);
    #[derive(Serialize)]
    struct Pair(u8, Sensitive<()>);
    #[derive(Serialize)]
    enum Kind {
        Unit,
        Newtype(Sensitive<u8>),
        Pair(u8, i8),
        Struct {
            a: Sensitive<Option<u8>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            b: Option<u8>,
        },
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        A(Sensitive<BTreeMap<i64, char>>),
    }
    #[derive(Serialize)]
    struct All {
        none: Option<Sensitive<u8>>,
        double: Option<Option<u8>>,
        wide: (u128, i128, f32, f64, bool),
        kinds: Vec<Kind>,
        unit: Unit,
        newtype: Newtype,
        pair: Pair,
        untagged: Untagged,
        raw: Box<serde_json::value::RawValue>,
        value: Sensitive<Value>,
        bytes: [u8; 2],
        names: BTreeMap<bool, &'static str>,
        text: String,
        #[serde(flatten)]
        flat: BTreeMap<String, Sensitive<Vec<u8>>>,
    }
    let all = All {
        none: None,
        double: Some(None),
        wide: (u128::MAX, i128::MIN, 0.1, 1e300, true),
        kinds: vec![
            Kind::Unit,
            Kind::Newtype(1.into()),
            Kind::Pair(1, -1),
            Kind::Struct { a: Sensitive::Present(None), b: None },
        ],
        unit: Unit,
        newtype: Newtype(2.into()),
        pair: Pair(1, Sensitive::Present(())),
        untagged: Untagged::A(BTreeMap::from([(-3, 'x')]).into()),
        raw: serde_json::value::RawValue::from_string(r#"{"a" : 1.0}"#.to_owned()).unwrap(),
        value: json!({"a": [1, -2, 0.5, null, {"b": "c"}]}).into(),
        bytes: [1, 2],
        names: BTreeMap::from([(true, "yes")]),
        text: "\"\\\n\u{1f980}".to_owned(),
        flat: object("flat/~", vec![1].into()),
    };
    let event = NewEvent::json("All", 1, &all).unwrap();
    assert_eq!(String::from_utf8(event.into_payload()).unwrap(), serde_json::to_string(&all).unwrap());
}

#[tokio::test]
async fn a_null_in_a_sensitive_is_read_as_it_was_passed() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Notes {
        customer_id: String,
        unit: Sensitive<()>,
        none: Sensitive<Option<u8>>,
        some: Sensitive<Option<u8>>,
    }
    let world = World::new();
    let store = world
        .store(Schemas::new([event("Noted").version(1).protect(&["/unit", "/none", "/some"], customer())]).unwrap())
        .await;
    let notes = |a, b, c| Notes { customer_id: "42".to_owned(), unit: a, none: b, some: c };
    let passed = notes(Sensitive::Present(()), Sensitive::Present(None), Sensitive::Present(Some(1)));
    try_append(&world, &store, "1", NewEvent::json("Noted", 1, &passed).unwrap()).await.unwrap();
    assert_eq!(world.read(&store, "1").await.unwrap()[0].decode::<Notes>().unwrap(), passed);
    world.shred(&store, "42").await;
    let erased = notes(Sensitive::Redacted, Sensitive::Redacted, Sensitive::Redacted);
    assert_eq!(world.read(&store, "1").await.unwrap()[0].decode::<Notes>().unwrap(), erased);
}

#[tokio::test]
async fn a_step_that_returns_no_number_fails() {
    #[derive(Serialize, Deserialize)]
    struct Weight {
        weight: f64,
    }
    let divide = |old: Weight| Ok::<_, Infallible>(Weight { weight: 1.0 / old.weight });
    for new in [
        event("Weighed").version(1).version(2).upcast(1, divide),
        event("Weighed")
            .version(1)
            .version(2)
            .change(1, Changes::new().map_value("/weight", |weight: f64| 1.0 / weight)),
    ] {
        let world = World::new();
        let old = world.store(Schemas::new([event("Weighed").version(1)]).unwrap()).await;
        world.append(&old, "1", &[NewEvent::raw("Weighed", 1, r#"{"weight":0.0}"#)]).await;
        let store = world.store(Schemas::new([new]).unwrap()).await;
        let error = world.read(&store, "1").await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Event { fault: EventFault::Upcast { problem, .. }, .. }
                    if problem.contains("is not finite")
            ),
            "{error:?}"
        );
    }
}
