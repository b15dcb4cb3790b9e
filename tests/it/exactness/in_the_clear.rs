//! A `Sensitive` that nothing protects is not stored.

use super::{object, try_append};
use eventseal::error::EventFault;
use eventseal::{Error, Event, EventStoreExt, NewEvent, Owner, Result, Schemas, Sensitive, aggregate, event};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use support::world::*;

#[derive(Serialize)]
struct Contact {
    email: Sensitive<String>,
}

/// The place at which a `Sensitive` would be stored in the clear, if there is one.
async fn in_the_clear<T: Serialize>(protected: &[&str], value: &T) -> Option<String> {
    let version = event("Met").version(1);
    let version = if protected.is_empty() { version } else { version.protect(protected, Owner::Aggregate) };
    let world = World::new();
    let store = world.store(Schemas::new([version]).unwrap()).await;
    let new = NewEvent::json("Met", 1, value).unwrap();
    let id = new.event_id;
    match try_append(&world, &store, "1", new).await {
        Ok(()) => None,
        Err(Error::Event {
            event_id,
            fault: EventFault::SensitiveInTheClear { event_type, event_version, pointer },
        }) => {
            assert_eq!((event_id, event_type.as_str(), event_version.get()), (id, "Met", 1));
            assert!(
                store
                    .inner()
                    .read_stream(&mut world.db.begin(), &aggregate("Order", "1"))
                    .await
                    .unwrap()
                    .events
                    .is_empty()
            );
            Some(pointer.as_str().to_owned())
        }
        Err(other) => panic!("{other:?}"),
    }
}

macro_rules! assert_clear {
    ($($protected:expr, $value:expr => $expected:expr;)+) => {$(
        assert_eq!(in_the_clear(&$protected, &$value).await.as_deref(), $expected, "{}", stringify!($value));
    )+};
}

#[derive(Serialize)]
struct Flat<T> {
    other: Sensitive<u8>,
    #[serde(flatten)]
    rest: T,
}
#[derive(Serialize)]
#[serde(tag = "kind")]
enum Internal {
    Card { email: Sensitive<String> },
    Newtype(Contact),
    Wrapped(Sensitive<BTreeMap<String, u8>>),
}
#[derive(Serialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Card { email: Sensitive<String> },
    Pair(u8, Sensitive<u8>),
}
#[derive(Serialize)]
#[serde(untagged)]
enum Untagged {
    Card { email: Sensitive<String> },
}
#[derive(Serialize)]
enum External {
    Card { email: Sensitive<String> },
    Pair(u8, Sensitive<u8>),
    Newtype(Sensitive<u8>),
}
#[derive(Serialize)]
struct Outer<T> {
    inner: T,
}

#[tokio::test]
async fn i2_a_sensitive_at_a_place_that_nothing_protects_is_not_stored() {
    let email = || Sensitive::from("a@x");
    let contact = || Contact { email: email() };
    assert_clear! {
        ["/email"], contact() => None;
        ["/emial"], contact() => Some("/email");
        [], contact() => Some("/email");
        ["/inner"], Outer { inner: contact() } => None;
        ["/inner/name"], Outer { inner: contact() } => Some("/inner/email");
        ["/inner/*/email"], Outer { inner: [contact(), contact()] } => None;
        ["/inner/0/email"], Outer { inner: [contact(), contact()] } => Some("/inner/1/email");
        ["/inner/a~1b"], Outer { inner: object("a/b", email()) } => None;
        ["/inner/a"], Outer { inner: object("b", email()) } => Some("/inner/b");
        // Several in one another.
        ["/inner"], Outer { inner: Sensitive::from(contact()) } => None;
        ["/inner/email"], Outer { inner: Sensitive::from(contact()) } => None;
        ["/inner/a"], Outer { inner: Sensitive::from(BTreeMap::from([("a", 1), ("b", 2)])) } => Some("/inner/b");
        ["/inner/*/a"], Outer { inner: Sensitive::from(vec![object("a", 1), object("b", 2)]) } => Some("/inner/1/b");
        ["/inner/*/a"], Outer { inner: Sensitive::from(vec![object("a", 1)]) } => None;
        ["/inner/a"], Outer { inner: Sensitive::from(None::<BTreeMap<String, u8>>) } => Some("/inner");
        ["/inner/0"], Outer { inner: Sensitive::Present(Sensitive::Present(1)) } => Some("/inner");
        // Where serde moves members, or keeps them in a buffer.
        ["/other", "/email"], Flat { other: 1.into(), rest: contact() } => None;
        ["/other"], Flat { other: 1.into(), rest: contact() } => Some("/email");
        ["/email"], Flat { other: 1.into(), rest: contact() } => Some("/other");
        ["/other", "/a"], Flat { other: 1.into(), rest: Sensitive::from(object("a", 1)) } => None;
        ["/other"], Flat { other: 1.into(), rest: Sensitive::from(object("a", 1)) } => Some("/a");
        ["/other"], Flat { other: 1.into(), rest: Sensitive::from(None::<BTreeMap<String, u8>>) } => None;
        ["/other", "/email"], Flat { other: 1.into(), rest: Internal::Newtype(contact()) } => None;
        ["/other"], Flat { other: 1.into(), rest: Internal::Card { email: email() } } => Some("/email");
        ["/email"], Internal::Card { email: email() } => None;
        ["/kind"], Internal::Newtype(contact()) => Some("/email");
        ["/a"], Internal::Wrapped(object("a", 1).into()) => Some("/kind");
        ["/c/email"], Adjacent::Card { email: email() } => None;
        ["/email"], Adjacent::Card { email: email() } => Some("/c/email");
        ["/c/1"], Adjacent::Pair(1, 2.into()) => None;
        ["/c/0"], Adjacent::Pair(1, 2.into()) => Some("/c/1");
        ["/email"], Untagged::Card { email: email() } => None;
        ["/Card/email"], Untagged::Card { email: email() } => Some("/email");
        ["/Card/email"], External::Card { email: email() } => None;
        ["/email"], External::Card { email: email() } => Some("/Card/email");
        ["/Pair/1"], External::Pair(1, 2.into()) => None;
        ["/Pair/0"], External::Pair(1, 2.into()) => Some("/Pair/1");
        ["/Newtype"], External::Newtype(2.into()) => None;
        ["/x"], External::Newtype(2.into()) => Some("/Newtype");
        ["/inner/Pair/1", "/inner/Card/email"], Outer { inner: External::Pair(1, 2.into()) } => None;
    }
}

/// Serde's internally tagged enums keep tuple variants of an enum inside in a buffer until the tag is written.
#[tokio::test]
async fn i2_a_sensitive_that_went_through_a_buffer_is_known_again() {
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Outer {
        Inner(Inner),
    }
    #[derive(Serialize)]
    enum Inner {
        Pair(u8, Sensitive<Vec<Sensitive<u8>>>),
        Struct { a: u8, b: Sensitive<u8> },
    }
    let pair = || Outer::Inner(Inner::Pair(1, vec![2.into(), 3.into()].into()));
    assert_clear! {
        ["/Pair/1"], pair() => None;
        ["/Pair/0"], pair() => Some("/Pair/1");
        ["/Pair/1/*"], pair() => None;
        ["/Struct/b"], Outer::Inner(Inner::Struct { a: 1, b: 2.into() }) => None;
        ["/Struct/a"], Outer::Inner(Inner::Struct { a: 1, b: 2.into() }) => Some("/Struct/b");
    }
}

/// A value that another serializer writes may be anywhere in the resulting text or name.
#[tokio::test]
async fn i2_a_sensitive_in_a_text_or_a_name_needs_protection_around_it() {
    struct Text(Contact);
    impl Serialize for Text {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&serde_json::to_string(&self.0).unwrap())
        }
    }
    struct Named;
    impl Serialize for Named {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(Sensitive::Present("name"), 1)])
        }
    }
    let text = || BTreeMap::from([("text", Text(Contact { email: "a@x".into() }))]);
    assert_clear! {
        ["/text"], text() => None;
        ["/other"], text() => Some("/text");
        ["/text"], BTreeMap::from([("text", Named)]) => None;
        ["/text/name"], BTreeMap::from([("text", Named)]) => Some("/text");
    }
}

/// A `Sensitive` that came out of a buffer is not taken for one that went into a text, even if there are as many of one
/// as of the other.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of types")]
async fn i2_a_sensitive_in_a_text_is_not_taken_for_one_that_somebody_wrote_twice() {
    /// Writes a text as a buffer writes a `Sensitive` that it was given.
    struct Again(String);
    impl Serialize for Again {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_newtype_struct("$eventseal::Sensitive", &self.0)
        }
    }
    struct Twice(Sensitive<String>);
    impl Serialize for Twice {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            #[derive(Serialize)]
            struct Written {
                email: Again,
                mail: Again,
                text: String,
            }
            let kept = || Again(serde_json::to_value(&self.0).unwrap().as_str().unwrap().to_owned());
            Written { email: kept(), mail: Again("a@x".to_owned()), text: serde_json::to_string(&self.0).unwrap() }
                .serialize(serializer)
        }
    }
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Outer {
        Inner(Inner),
    }
    #[derive(Serialize)]
    enum Inner {
        Pair(u8, Sensitive<u8>, InText),
    }
    struct InText;
    impl Serialize for InText {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&serde_json::to_string(&Sensitive::<String>::from("a@x")).unwrap())
        }
    }
    assert_clear! {
        ["/email", "/mail"], Twice("a@x".into()) => Some("");
        ["/inner"], object("inner", Twice("a@x".into())) => None;
        ["/Pair/1"], Outer::Inner(Inner::Pair(1, 2.into(), InText)) => Some("");
        ["/a/Pair/1", "/text"], object("a", Outer::Inner(Inner::Pair(1, 2.into(), InText))) => Some("/a");
    }
    // Others that came out of their buffers stay known.
    #[derive(Serialize)]
    struct Beside {
        tagged: OnlyPair,
        text: InText,
    }
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum OnlyPair {
        Inner(Pair),
    }
    #[derive(Serialize)]
    enum Pair {
        Pair(u8, Sensitive<u8>),
    }
    let beside = || Beside { tagged: OnlyPair::Inner(Pair::Pair(1, 2.into())), text: InText };
    assert_clear! {
        ["/tagged/Pair/1", "/text"], beside() => None;
        ["/tagged/Pair/1"], beside() => Some("/text");
        ["/tagged/Pair/0", "/text"], beside() => Some("/tagged/Pair/1");
    }
}

#[tokio::test]
async fn i2_who_changes_the_event_does_not_silence_the_check() {
    let world = World::new();
    let schemas = Schemas::builder([
        event("Met").version(1).protect(&["/email"], Owner::Aggregate),
        event("Plain").version(1),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
    ]);
    let store = world.store(schemas.build().unwrap()).await;
    let contact = || NewEvent::json("Met", 1, &Contact { email: "a@x".into() }).unwrap();
    let append = async |change: &dyn Fn(&mut NewEvent)| {
        let mut new = contact();
        change(&mut new);
        try_append(&world, &store, &new.event_id.to_string(), new).await
    };
    let is_refused =
        |result: Result<()>| matches!(result, Err(Error::Event { fault: EventFault::SensitiveInTheClear { .. }, .. }));
    assert!(append(&|_| ()).await.is_ok());
    assert!(append(&|new| new.event_type = "Whole".into()).await.is_ok());
    assert!(is_refused(append(&|new| new.event_type = "Plain".into()).await));
    // The payload itself can't be exchanged: NewEvent's documentation shows that this does not compile.
    let raw = NewEvent::raw("Plain", 1, contact().payload());
    assert!(raw == raw.clone() && try_append(&world, &store, "raw", raw).await.is_ok(), "bytes say nothing");
    assert_eq!(contact().payload(), br#"{"email":"a@x"}"#);
    assert_eq!(contact().into_payload(), br#"{"email":"a@x"}"#);
}

#[tokio::test]
async fn i2_a_sensitive_of_a_type_that_is_not_registered_is_not_stored() {
    #[derive(Serialize, Deserialize)]
    struct Shipped {
        to: Sensitive<String>,
    }
    impl Event for Shipped {
        const TYPE: &'static str = "Shipped";
        const VERSION: u32 = 1;
    }
    #[derive(eventseal::Events)]
    enum OrderEvent {
        Shipped(Shipped),
    }
    let world = World::new();
    let store = world.store(Schemas::builder([event("Met").version(1)]).allow_unknown_types().build().unwrap()).await;
    let shipped = || Shipped { to: "Ada".into() };
    for new in
        [NewEvent::of(&shipped()), NewEvent::of(&OrderEvent::from(shipped())), NewEvent::json("Shipped", 1, &shipped())]
    {
        let error = try_append(&world, &store, "1", new.unwrap()).await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Event { fault: EventFault::SensitiveInTheClear { pointer, .. }, .. }
                    if pointer.as_str() == "/to"
            ),
            "{error:?}"
        );
    }
}
