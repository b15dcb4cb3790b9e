//! I15, for any events: an export holds every value of its owner, and nobody else's.

use super::{ExportOptions, lines};
use eventseal::ExpectedVersion::Any;
use eventseal::memory::{MemoryDb, MemoryStore};
use eventseal::schema::{EventSchema, SplitPart, StepContext};
use eventseal::{Changes, EventStore, KeyScope, NewEvent, Owner, Schemas, SealedStore, aggregate, event, subject};
use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use support::world::World;

const IDS: [&str; 3] = ["a", "b", "c"];

/// What is protected in all types.
fn protected(schema: EventSchema, name: &str) -> EventSchema {
    schema
        .protect(&[name, "/address"], subject("Customer", "/customer"))
        .protect(&["/lines/*/note", "/lines/*/tags/*"], subject("Customer", "/lines/*/to"))
        .protect(&["/friend/note"], subject("Friend", "/friend/id"))
        .protect(&["/own"], Owner::Aggregate)
        .redact_as("/friend/note", "(erased)")
}

/// What becomes of an event of each type.
const TYPES: [&str; 6] = ["Stays", "Changes", "Function", "Split", "Dropped", "Fails"];

fn split(old: Value, _: &StepContext<'_>) -> Result<Vec<SplitPart>, Infallible> {
    let lines = old["lines"].as_array().cloned().unwrap_or_default();
    let mut parts: Vec<SplitPart> = lines.into_iter().map(|line| SplitPart::new("Line", 1, line)).collect();
    parts.push(SplitPart::new("Stays", 1, old));
    Ok(parts)
}

fn schemas(with_steps: bool) -> Schemas {
    let v1 = |name: &str| protected(event(name).version(1), "/name");
    let v2 = |name: &str, at: &str| protected(v1(name).version(2), at);
    let whole = event("Whole").version(1).protect_whole(Owner::Aggregate);
    if !with_steps {
        return Schemas::new(TYPES.map(v1).into_iter().chain([whole])).unwrap();
    }
    let moved = Changes::new().move_value("/name", "/called").copy_value("/called", "/lines/*/host").remove("/address");
    let function = |mut old: Value| {
        // A function may do anything with what it sees: it writes everything into an unprotected member as well.
        let all = old.to_string();
        old["all"] = all.into();
        old["called"] = old["name"].take();
        Ok::<_, Infallible>(old)
    };
    let fails = |old: Value| match old["friend"]["note"] == "(erased)" {
        true => Err("no note"),
        false => Ok(old),
    };
    Schemas::new([
        v1("Stays"),
        v2("Changes", "/called").protect(&["/lines/*/host"], subject("Customer", "/customer")).change(1, moved),
        v2("Function", "/called").upcast(1, function),
        v1("Split").split(1, &[("Stays", 1), ("Line", 1)], split),
        event("Line").version(1).protect(&["/note", "/tags/*"], subject("Customer", "/to")),
        v1("Dropped").drop_from(1),
        v2("Fails", "/name").upcast(1, fails),
        whole,
    ])
    .unwrap()
}

/// An event before its values are made: who owns what.
#[derive(Clone, Debug)]
struct Sketch {
    event_type: usize,
    customer: usize,
    friend: Option<usize>,
    lines: Vec<(usize, usize)>,
    is_whole: bool,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let id = || 0..IDS.len();
    let lines = prop::collection::vec((id(), 0..3_usize), 0..4);
    (0..TYPES.len(), id(), prop::option::of(id()), lines, prop::bool::weighted(0.1)).prop_map(
        |(event_type, customer, friend, lines, is_whole)| Sketch { event_type, customer, friend, lines, is_whole },
    )
}

/// The values of each owner.
type Secrets = BTreeMap<(String, String), BTreeSet<String>>;

/// Makes an event in which every protected value is another one.
fn make(sketch: &Sketch, order: &str, secrets: &mut Secrets, next: &mut u32) -> NewEvent {
    let mut secret = |kind: &str, id: &str| {
        *next += 1;
        let secret = format!("secret-{next}-of-{kind}-{id}");
        secrets.entry((kind.to_owned(), id.to_owned())).or_default().insert(secret.clone());
        secret
    };
    if sketch.is_whole {
        return NewEvent::raw("Whole", 1, json!({ "all": secret("Order", order) }).to_string());
    }
    let customer = IDS[sketch.customer];
    let mut payload = json!({
        "customer": customer,
        "name": secret("Customer", customer),
        "address": {"street": secret("Customer", customer), "list": [secret("Customer", customer)]},
        "own": secret("Order", order),
        "total": 1,
    });
    if let Some(friend) = sketch.friend {
        payload["friend"] = json!({"id": IDS[friend], "note": secret("Friend", IDS[friend])});
    }
    let lines = sketch.lines.iter().map(|(to, tags)| {
        let tags: Vec<String> = (0..*tags).map(|_| secret("Customer", IDS[*to])).collect();
        json!({"to": IDS[*to], "note": secret("Customer", IDS[*to]), "tags": tags, "sku": "s"})
    });
    payload["lines"] = lines.collect();
    NewEvent::raw(TYPES[sketch.event_type], 1, payload.to_string())
}

fn append(db: &MemoryDb, store: &SealedStore<MemoryStore>, order: &str, event: NewEvent) {
    let mut tx = db.begin();
    block_on(store.append(&mut tx, &aggregate("Order", order), Any, &[event])).unwrap();
    tx.commit().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn i15_an_export_holds_every_field_of_its_owner_and_nobody_elses(
        sketches in prop::collection::vec((sketch(), 0..2_usize), 1..8),
        later in prop::collection::vec((sketch(), 0..2_usize), 0..4),
        shredded in prop::collection::btree_set((0..2_usize, 0..IDS.len()), 0..3),
    ) {
        let world = World::new();
        let writer = block_on(world.store(schemas(false)));
        let (mut erased, mut secrets, mut next) = (Secrets::new(), Secrets::new(), 0);
        for (sketch, order) in &sketches {
            append(&world.db, &writer, IDS[*order], make(sketch, IDS[*order], &mut secrets, &mut next));
        }
        // Some owners were erased, and came back.
        for (kind, id) in shredded {
            let (kind, id) = (["Customer", "Friend"][kind].to_owned(), IDS[id].to_owned());
            let Some(gone) = secrets.remove(&(kind.clone(), id.clone())) else { continue };
            let scope = KeyScope::new(kind.as_str(), id.as_str());
            let mut tx = world.db.begin();
            block_on(writer.keys().shred(&mut tx, &scope, "request")).unwrap();
            block_on(writer.keys().reopen(&mut tx, &scope, "back")).unwrap();
            tx.commit().unwrap();
            erased.insert((kind, id), gone);
        }
        for (sketch, order) in &later {
            append(&world.db, &writer, IDS[*order], make(sketch, IDS[*order], &mut secrets, &mut next));
        }
        let readers = [schemas(true), Schemas::new([]).unwrap()].map(|schemas| block_on(world.store(schemas)));
        let owners: BTreeSet<_> = secrets.keys().chain(erased.keys()).cloned().collect();
        for ((kind, id), reader) in owners.iter().flat_map(|owner| readers.iter().map(move |reader| (owner, reader))) {
            let scope = KeyScope::new(kind.as_str(), id.as_str());
            let found = block_on(lines(reader, &mut world.db.begin(), &scope, &ExportOptions::default()));
            let (lines, exported) = found.unwrap();
            let text = lines.iter().map(Value::to_string).collect::<String>();
            let own = secrets.get(&(kind.clone(), id.clone())).cloned().unwrap_or_default();
            for secret in &own {
                // A value in the stored form of the event: nothing depends on what steps do.
                let held = lines.iter().any(|line| line["stored"].to_string().contains(&format!("\"{secret}\"")));
                prop_assert!(held, "{scope}: {secret} is missing in {text}");
            }
            let others = secrets.iter().filter(|(owner, _)| (&owner.0, &owner.1) != (kind, id)).map(|(_, of)| of);
            for secret in others.chain(erased.values()).flatten() {
                prop_assert!(!text.contains(secret.as_str()), "{scope}: {secret} is in {text}");
            }
            prop_assert!(exported.is_complete());
        }
    }
}
