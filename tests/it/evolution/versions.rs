//! Versions that are missing, too old or too new.

use super::*;
use eventseal::error::EventFault;

async fn read_stored(version: u32, schemas: Schemas) -> Result<PersistedEvent> {
    let world = World::new();
    let mut stored = NewEvent::raw("E", version.max(1), r#"{"a":1}"#);
    stored.event_version = EventVersion::new(version);
    let aggregate = aggregate("Order", "1");
    let sealer = Sealer::new(MemoryKeys::new(), std::sync::Arc::clone(&world.keyring), schemas);
    sealer.keys().prepare(&mut world.db.begin()).await.unwrap();
    let stored = PersistedEvent::from_new(aggregate, AggregateVersion::FIRST, GlobalPosition::START, stored);
    Ok(sealer.open(&mut world.db.begin(), vec![stored]).await?.remove(0))
}

fn chain() -> EventSchema {
    let step = |n: u32| Changes::new().set_default(format!("/v{n}"), n);
    event("E").version(3).version(4).version(5).change(3, step(3)).change(4, step(4))
}

#[tokio::test]
async fn a_gap_below_what_is_registered_is_named() {
    let text = async |version, schemas| read_stored(version, schemas).await.unwrap_err().to_string();
    let of = || Schemas::new([chain()]).unwrap();
    let error = text(1, of()).await;
    assert!(
        error.ends_with(
            "E version 1 is older than version 3, the oldest registered: declare versions 1 to 2, and the steps \
             between them"
        ),
        "{error}"
    );
    let error = text(2, of()).await;
    assert!(
        error.ends_with(
            "E version 2 is older than version 3, the oldest registered: declare it, and its step to version 3"
        ),
        "{error}"
    );
    let error = text(0, of()).await;
    assert!(
        error.ends_with("E is stored without a version: say in its schema which one that is, with legacy_version(n)"),
        "{error}"
    );
    let error = text(6, of()).await;
    assert!(error.contains("E version 6 is newer than version 5"), "{error}");
    let newer = Schemas::builder([chain()]).pass_through_newer().build().unwrap();
    let passed = read_stored(6, newer).await.unwrap();
    assert_eq!((passed.event_version.get(), &*passed.payload), (6, &br#"{"a":1}"#[..]));
}

#[tokio::test]
async fn a_missing_version_is_read_as_the_schema_says() {
    let read = async |schemas| read_stored(0, schemas).await.unwrap();
    for (legacy, expected) in
        [(3, json!({"a": 1, "v3": 3, "v4": 4})), (4, json!({"a": 1, "v4": 4})), (5, json!({"a": 1}))]
    {
        let by_type = read(Schemas::new([chain().legacy_version(legacy)]).unwrap()).await;
        let for_all = read(Schemas::builder([chain()]).legacy_version(legacy).build().unwrap()).await;
        for event in [by_type, for_all] {
            assert_eq!(
                (json_of(&event), event.event_version.get(), event.stored_version.get()),
                (expected.clone(), 5, 0)
            );
        }
    }
    let known = read_stored(4, Schemas::new([chain().legacy_version(3)]).unwrap()).await.unwrap();
    assert_eq!(json_of(&known), json!({"a": 1, "v4": 4}), "what has a version keeps it");
    let own = Schemas::builder([chain().legacy_version(4)]).legacy_version(3).build().unwrap();
    assert_eq!(json_of(&read(own).await), json!({"a": 1, "v4": 4}), "the type's own word counts");
    let others = Schemas::builder([chain()]).legacy_version(1).build().unwrap();
    assert!(
        matches!(
            read_stored(0, others).await.unwrap_err(),
            Error::Event { fault: EventFault::UnknownVersion { .. }, .. }
        ),
        "the type has no such version"
    );
}

fn problems(schemas: std::result::Result<Schemas, SchemaErrors>) -> String {
    schemas.map_or_else(
        |errors| errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        |_| String::new(),
    )
}

#[test]
fn what_policies_can_not_mean_is_refused() {
    let problems_of = |event: EventSchema| problems(Schemas::new([event]));
    assert_eq!(problems_of(chain().legacy_version(2)), "E: .legacy_version(2) names a version that is not declared");
    assert_eq!(problems_of(chain().legacy_version(3).legacy_version(3)), "E: .legacy_version(…) is said twice");
    let metadata = |event: EventSchema, from| event.upcast_metadata(from, |metadata, _| Ok::<_, Infallible>(metadata));
    assert_eq!(problems_of(metadata(metadata(chain(), 3), 4)), "");
    assert_eq!(
        problems_of(metadata(metadata(chain(), 3), 3)),
        "E version 3: there are two changes of the metadata from this version"
    );
    let without = "so its metadata can't be changed";
    assert!(problems_of(metadata(chain(), 5)).contains(without) && problems_of(metadata(chain(), 9)).contains(without));
    assert!(problems_of(metadata(event("E").version(1).drop_from(1), 1)).contains(without));
    let two_steps = || [chain(), event("F").version(1).change(1, Changes::new().rename_type("E", 3))];
    assert_eq!(problems(Schemas::builder(two_steps()).max_steps(3).build()), "");
    let too_long = "F version 1: its chain has 3 steps, and 2 are allowed: merge some, or raise max_steps";
    assert_eq!(problems(Schemas::builder(two_steps()).max_steps(2).build()), too_long);
    assert_eq!(
        problems(Schemas::builder(two_steps()).max_steps(1).build()),
        too_long.replace("and 2 are", "and 1 are"),
        "said once"
    );
}

#[tokio::test]
async fn the_number_of_parts_is_limited() {
    // 1 → 2 → 4 → …
    let double = |version: u32| {
        move |old: Value, _: &StepContext<'_>| {
            let part = SplitPart::new(format!("T{}", version + 1), 1, old);
            Ok::<_, Infallible>(vec![part.clone(), part])
        }
    };
    let doubling = |last: u32| {
        let types =
            (0..last).map(|n| event(format!("T{n}")).version(1).split(1, &[(&format!("T{}", n + 1), 1)], double(n)));
        types.chain([event(format!("T{last}")).version(1)]).collect::<Vec<_>>()
    };
    let read = async |schemas: Schemas| {
        let world = World::new();
        world.append(&MemoryStore::new(), "1", &[NewEvent::raw("T0", 1, "{}")]).await;
        world.read(&world.store(schemas).await, "1").await
    };
    assert_eq!(read(Schemas::new(doubling(9)).unwrap()).await.unwrap().len(), 512);
    assert_eq!(read(Schemas::builder(doubling(3)).max_parts(8).build().unwrap()).await.unwrap().len(), 8);
    for (schemas, limit) in
        [(Schemas::new(doubling(10)), 1_000), (Schemas::builder(doubling(3)).max_parts(7).build(), 7)]
    {
        let error = read(schemas.unwrap()).await.unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("one event became more than {limit}: split it into fewer, or raise max_parts")),
            "{error}"
        );
    }
}
