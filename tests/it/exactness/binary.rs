//! `Sensitive` in formats that are not human readable, such as those of snapshots and messages.

use super::{object, try_append};
use eventseal::error::EventFault;
use eventseal::{Error, NewEvent, Owner, Schemas, Sensitive, event};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::convert::Infallible;
use std::fmt::Debug;
use support::world::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Snapshot {
    count: Sensitive<u8>,
    name: Sensitive<String>,
    note: Sensitive<Option<String>>,
    nested: Sensitive<Sensitive<bool>>,
    list: Vec<Sensitive<()>>,
    after: u16,
}

#[track_caller]
fn comes_back<T: Debug + PartialEq + Serialize + for<'de> Deserialize<'de>>(value: &T) {
    let bytes = postcard::to_allocvec(value).unwrap();
    let (read, rest) = postcard::take_from_bytes::<T>(&bytes).unwrap();
    assert_eq!(&read, value, "{bytes:?}");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn what_is_written_in_a_binary_format_is_read() {
    let notes = [Sensitive::Present(Some("n".to_owned())), Sensitive::Present(None), Sensitive::Redacted];
    let nested = [Sensitive::Present(Sensitive::Present(false)), Sensitive::Present(Sensitive::Redacted)];
    for (count, note) in [Sensitive::Present(0), Sensitive::Present(1), Sensitive::Redacted].into_iter().zip(notes) {
        for nested in nested {
            for name in [Sensitive::Present(String::new()), Sensitive::Present("Ada".to_owned()), Sensitive::Redacted] {
                let list = vec![Sensitive::Present(()), Sensitive::Redacted, Sensitive::Present(())];
                comes_back(&Snapshot { count, name, note: note.clone(), nested, list, after: 5 });
            }
        }
    }
}

#[test]
fn an_option_of_the_same_type_reads_and_writes_the_same_bytes() {
    for value in [Sensitive::Present(0_u8), Sensitive::Present(7), Sensitive::Redacted] {
        let bytes = postcard::to_allocvec(&value).unwrap();
        assert_eq!(postcard::from_bytes::<Option<u8>>(&bytes).unwrap(), value.expose().copied());
    }
}

/// A part of a payload that is kept as bytes.
#[derive(Debug, PartialEq)]
struct Packed(Sensitive<String>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        postcard::to_allocvec(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        postcard::from_bytes(&bytes).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The bytes of a `Sensitive` in a payload are protected, or not stored.
#[tokio::test]
async fn i2_bytes_that_hold_a_sensitive_are_not_stored_in_the_clear() {
    for (protected, is_stored) in [("/packed", true), ("/other", false)] {
        let world = World::new();
        let schemas = Schemas::new([event("Met").version(1).protect(&[protected], Owner::Aggregate)]).unwrap();
        let store = world.store(schemas).await;
        let met = NewEvent::json("Met", 1, &object("packed", Packed("Ada".into()))).unwrap();
        match try_append(&world, &store, "1", met).await {
            Ok(()) => {
                assert!(is_stored);
                let read = world.read(&store, "1").await.unwrap().remove(0);
                let read: std::collections::BTreeMap<String, Packed> = read.decode().unwrap();
                assert_eq!(read["packed"], Packed("Ada".into()));
            }
            Err(Error::Event { fault: EventFault::SensitiveInTheClear { pointer, .. }, .. }) => {
                assert!(!is_stored && pointer.as_str() == "/packed");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A step can't hide a redaction in bytes, where no reader would find it.
#[tokio::test]
async fn i7_a_step_that_writes_a_redaction_as_bytes_fails() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        name: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize)]
    struct New {
        packed: Packed,
    }
    let schemas = || {
        let old = event("Met").version(1).protect(&["/name"], Owner::Aggregate);
        let new = old.version(2).protect(&["/packed"], Owner::Aggregate);
        Schemas::new([new.upcast(1, |old: Old| Ok::<_, Infallible>(New { packed: Packed(old.name) }))]).unwrap()
    };
    let world = World::new();
    let writer =
        world.store(Schemas::new([event("Met").version(1).protect(&["/name"], Owner::Aggregate)]).unwrap()).await;
    world.append(&writer, "1", &[NewEvent::raw("Met", 1, r#"{"name":"Ada"}"#)]).await;
    let store = world.store(schemas()).await;
    let live = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(live.decode::<New>().unwrap().packed, Packed("Ada".into()));
    let mut tx = world.db.begin();
    store.keys().shred(&mut tx, &eventseal::KeyScope::new("Order", "1"), "request").await.unwrap();
    tx.commit().unwrap();
    let error = world.read(&store, "1").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the step from Met version 1") && text.contains("New can't be written as JSON"), "{text}");
}
