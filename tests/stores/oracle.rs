//! Checks that no protected value reaches the store, with an oracle that follows the documentation and does not use the
//! scanner. It walks a tree of the document, one pointer after the other, and collects the values that must not be
//! found.

use eventseal::ExpectedVersion::Any;
use eventseal::schema::SchemaErrors;
use eventseal::{EventStore, EventStoreExt, NewEvent, Owner, Result, Schemas, aggregate, event, subject};
use futures::executor::block_on;
use proptest::prelude::*;
use std::fmt::Write;
use support::world::World;

/// JSON as it is written: with repeated members and with names in several spellings.
#[derive(Clone, Debug)]
enum Json {
    Null,
    Empty(&'static str),
    /// A string, a number or an integer: what it is, and a number that makes it the only one.
    Leaf(u8, u32),
    Array(Vec<Json>),
    Object(Vec<(Name, Json)>),
}

#[derive(Clone, Debug)]
struct Name {
    says: &'static str,
    spelling: u8,
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Empty(text) => out.push_str(text),
            Self::Leaf(..) => out.push_str(&self.leaf()),
            Self::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index > 0 { " ," } else { "" });
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    name.write(out);
                    out.push_str(" :");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Every leaf is another one, so that a leak is seen wherever it is.
    fn number(&mut self, next: &mut u32) {
        match self {
            Self::Leaf(_, number) => {
                *number = *next;
                *next += 1;
            }
            Self::Array(elements) => elements.iter_mut().for_each(|element| element.number(next)),
            Self::Object(members) => members.iter_mut().for_each(|(_, value)| value.number(next)),
            Self::Null | Self::Empty(_) => {}
        }
    }

    fn leaf(&self) -> String {
        match self {
            Self::Leaf(0, number) => format!("\"SECRET{number:04}\""),
            Self::Leaf(1, number) => format!("93{number:04}7"),
            Self::Leaf(_, number) => format!("94{number:04}.5"),
            _ => unreachable!("no leaf"),
        }
    }

    fn leaves(&self, out: &mut Vec<String>) {
        match self {
            Self::Leaf(..) => out.push(self.leaf().trim_matches('"').to_owned()),
            Self::Array(elements) => elements.iter().for_each(|element| element.leaves(out)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.leaves(out)),
            Self::Null | Self::Empty(_) => {}
        }
    }

    fn is_object(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Empty("{}"))
    }
}

impl Name {
    fn write(&self, out: &mut String) {
        out.push('"');
        for character in self.says.chars() {
            match (self.spelling, character) {
                (1, _) => write!(out, "\\u{:04x}", u32::from(character)).unwrap(),
                (2, '/') => out.push_str("\\/"),
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

/// The values at the places of a plan.
#[derive(Default)]
struct Found {
    /// Leaves that must not be seen.
    secrets: Vec<String>,
    /// Values other than null. Empty arrays and objects have no leaves, and are values all the same.
    values: usize,
}

/// `Err`: the document has another shape than the plan.
fn protected(json: &Json, tokens: &[&str], out: &mut Found) -> Result<(), &'static str> {
    let Some((token, rest)) = tokens.split_first() else {
        json.leaves(&mut out.secrets);
        out.values += usize::from(!matches!(json, Json::Null));
        return Ok(());
    };
    let index = token.parse::<u32>().ok().filter(|index| index.to_string() == *token);
    match json {
        Json::Null => Ok(()),
        Json::Leaf(..) => Err("a scalar on the way"),
        Json::Array(_) | Json::Empty("[]") => {
            let elements: &[Json] = if let Json::Array(elements) = json { elements } else { &[] };
            match (*token, index) {
                ("*", _) => elements.iter().try_for_each(|element| protected(element, rest, out)),
                (_, Some(index)) => {
                    elements.get(index as usize).map_or(Ok(()), |element| protected(element, rest, out))
                }
                _ => Err("an array where a member is meant"),
            }
        }
        Json::Object(_) | Json::Empty(_) if *token == "*" => Err("an object where elements are meant"),
        Json::Empty(_) => Ok(()),
        Json::Object(members) => {
            let name = token.replace("~2", "*").replace("~1", "/").replace("~0", "~");
            let mut found = members.iter().filter(|(known, _)| known.says == name);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => Err("a member that occurs twice"),
                (Some((_, value)), None) => protected(value, rest, out),
                (None, _) => Ok(()),
            }
        }
    }
}

fn document() -> impl Strategy<Value = Json> {
    let name = (prop::sample::select(vec!["a", "b", "0", "1", "*", "a/b", "", "-", "~2"]), 0_u8..3);
    let name = name.prop_map(|(says, spelling)| Name { says, spelling });
    let leaf = prop_oneof![
        6 => (0_u8..3).prop_map(|kind| Json::Leaf(kind, 0)),
        1 => Just(Json::Null),
        1 => Just(Json::Empty("[]")),
        1 => Just(Json::Empty("{}")),
    ];
    let document = leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 1..4).prop_map(Json::Array),
            4 => prop::collection::vec((name.clone(), inner), 1..6).prop_map(Json::Object),
        ]
    });
    document.prop_map(|mut document| {
        document.number(&mut 0);
        document
    })
}

fn pointer() -> impl Strategy<Value = String> {
    let token = || prop::sample::select(vec!["a", "b", "0", "1", "*", "~2", "a~1b", "", "-", "00", "~02"]);
    let first = prop_oneof![12 => token().boxed(), 1 => Just("*").boxed()];
    (first, prop::collection::vec(token(), 0..3))
        .prop_map(|(first, rest)| format!("/{}", [vec![first], rest].concat().join("/")))
}

#[derive(Clone, Debug)]
enum Whose {
    Aggregate,
    Kind,
    Subject(String),
}

fn owner() -> impl Strategy<Value = Whose> {
    let id = prop_oneof![2 => Just("/a".to_owned()), 2 => Just("/b".to_owned()), 1 => pointer()];
    prop_oneof![3 => Just(Whose::Aggregate), 1 => Just(Whose::Kind), 3 => id.prop_map(Whose::Subject)]
}

type Plan = Vec<(String, Whose)>;

fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec((pointer(), owner()), 1..4)
}

fn declare(plan: &Plan) -> std::result::Result<Schemas, SchemaErrors> {
    let declared = plan.iter().fold(event("Met").version(1), |schema, (pointer, whose)| {
        let owner = match whose {
            Whose::Aggregate => Owner::Aggregate,
            Whose::Kind => Owner::Aggregate.scope_kind("Buyer"),
            Whose::Subject(id) => subject("Guest", id.as_str()),
        };
        schema.protect(&[pointer.as_str()], owner).redact_as(pointer, "erased").pad_to(pointer, 64)
    });
    Schemas::new([declared])
}

fn cases() -> u32 {
    std::env::var("CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_global_rejects: 10_000_000, ..ProptestConfig::default() })]

    /// Either the append fails, or no value that the plan names is found in the stored event nor, after a shred, in the
    /// event that is read. An event that was stored in the clear is not read as if the plan protected nothing.
    #[test]
    fn i2_whatever_a_plan_names_is_sealed_or_refused(document in document(), plan in plan()) {
        let Ok(schemas) = declare(&plan) else { return Err(TestCaseError::reject("the schemas are refused")) };
        prop_assert!(plan.iter().all(|(pointer, _)| !pointer.starts_with("/*")), "a plan that can never seal: \
            {plan:?}");
        let mut text = String::new();
        document.write(&mut text);
        let (mut found, mut shape) = (Found::default(), Ok(()));
        for (pointer, _) in &plan {
            let tokens: Vec<&str> = pointer.split('/').skip(1).collect();
            shape = shape.and(protected(&document, &tokens, &mut found));
        }
        block_on(async {
            let world = World::new();
            let store = world.store(schemas).await;
            let order = aggregate("Order", "1");
            let new = [NewEvent::raw("Met", 1, text.clone())];
            let mut tx = world.db.begin();
            let appended = store.append(&mut tx, &order, Any, &new).await;
            if appended.is_ok() {
                tx.commit().unwrap();
                prop_assert!(shape.is_ok(), "accepted, though there is {shape:?}");
                let mut stored = store.inner().read_stream(&mut world.db.begin(), &order).await.unwrap();
                let stored = stored.events.remove(0).payload;
                let stored = String::from_utf8(stored).unwrap();
                for secret in &found.secrets {
                    prop_assert!(!stored.contains(secret.as_str()), "{secret} is stored in {stored}");
                }
                let read = world.read(&store, "1").await.unwrap().remove(0).payload;
                prop_assert_eq!(String::from_utf8(read).unwrap(), text.clone());
                for kind in ["Order", "Buyer"] {
                    world.shred_scope(&store, kind, "1").await;
                }
                if plan.iter().all(|(_, whose)| !matches!(whose, Whose::Subject(_))) {
                    let erased = String::from_utf8(world.read(&store, "1").await.unwrap().remove(0).payload).unwrap();
                    for secret in &found.secrets {
                        prop_assert!(!erased.contains(secret.as_str()), "{secret} is read after a shred: {erased}");
                    }
                }
            } else if plan.iter().all(|(_, whose)| !matches!(whose, Whose::Subject(_))) {
                // Nothing can be sealed in a payload that is no object.
                prop_assert!(shape.is_err() || !document.is_object(), "refused: {:?}", appended.err());
            }
            // The same document, stored by somebody who does not seal.
            let world = World::new();
            let store = world.store(declare(&plan).unwrap()).await;
            world.append(store.inner(), "1", &new).await;
            let read = world.read(&store, "1").await;
            prop_assert_eq!(read.is_err(), shape.is_err() || found.values > 0, "{:?}", read.err());
            Ok(())
        })?;
    }
}
