//! What is appended is what is read, protected where it says so, or it is refused: Rust values, odd JSON, erasures in any type.

use eventseal::ExpectedVersion::Any;
use eventseal::*;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use support::world::*;

fn customer() -> Owner {
    subject("Customer", "/customer_id")
}

async fn try_append(world: &World, store: &SealedStore<MemoryStore>, id: &str, event: NewEvent) -> Result<()> {
    let mut tx = world.db.begin();
    store.append(&mut tx, &aggregate("Order", id), Any, &[event]).await?;
    tx.commit()
}

fn problem<T: Serialize>(value: &T) -> String {
    match NewEvent::json("Met", 1, value) {
        Err(Error::Encode { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

// ---- what JSON can't say

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

/// An object of one member.
fn object<T>(name: &str, value: T) -> BTreeMap<String, T> {
    BTreeMap::from([(name.to_owned(), value)])
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
        kinds: vec![Kind::Unit, Kind::Newtype(1.into()), Kind::Pair(1, -1), Kind::Struct { a: Sensitive::Present(None), b: None }],
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
    assert_eq!(String::from_utf8(event.payload).unwrap(), serde_json::to_string(&all).unwrap());
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
    let store = world.store(Schemas::new([event("Noted").version(1).protect(&["/unit", "/none", "/some"], customer())]).unwrap()).await;
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
        event("Weighed").version(1).version(2).change(1, Changes::new().map_value("/weight", |weight: f64| 1.0 / weight)),
    ] {
        let world = World::new();
        let old = world.store(Schemas::new([event("Weighed").version(1)]).unwrap()).await;
        world.append(&old, "1", &[NewEvent::raw("Weighed", 1, r#"{"weight":0.0}"#)]).await;
        let store = world.store(Schemas::new([new]).unwrap()).await;
        let error = world.read(&store, "1").await.unwrap_err();
        assert!(matches!(&error, Error::Upcast { problem, .. } if problem.contains("is not finite")), "{error:?}");
    }
}

// ---- a Sensitive in the clear

#[derive(Serialize)]
struct Contact {
    email: Sensitive<String>,
}

/// Where a `Sensitive` would be in the clear, if anywhere.
async fn in_the_clear<T: Serialize>(protected: &[&str], value: &T) -> Option<String> {
    let version = event("Met").version(1);
    let version = if protected.is_empty() { version } else { version.protect(protected, Owner::Aggregate) };
    let world = World::new();
    let store = world.store(Schemas::new([version]).unwrap()).await;
    let new = NewEvent::json("Met", 1, value).unwrap();
    let id = new.event_id;
    match try_append(&world, &store, "1", new).await {
        Ok(()) => None,
        Err(Error::SensitiveInTheClear { event_id, event_type, event_version, pointer }) => {
            assert_eq!((event_id, event_type.as_str(), event_version.get()), (id, "Met", 1));
            assert!(store.inner().read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap().events.is_empty());
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

#[tokio::test]
async fn i2_a_sensitive_at_a_place_that_nothing_protects_is_not_stored() {
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

/// What another serializer writes is somewhere in the value that it becomes.
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

/// What comes out of one buffer does not stand for what went into a text, though there be as many of one as of the other.
#[tokio::test]
async fn i2_a_sensitive_in_a_text_is_not_taken_for_one_that_somebody_wrote_twice() {
    /// As a buffer writes what it was given.
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
            Written { email: kept(), mail: Again("a@x".to_owned()), text: serde_json::to_string(&self.0).unwrap() }.serialize(serializer)
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
    let protected = || event("Met").version(1).protect(&["/email"], Owner::Aggregate);
    let schemas = Schemas::builder([protected(), event("Plain").version(1), event("Whole").version(1).protect_whole(Owner::Aggregate)]);
    let store = world.store(schemas.build().unwrap()).await;
    let contact = || NewEvent::json("Met", 1, &Contact { email: "a@x".into() }).unwrap();
    let append = async |change: &dyn Fn(&mut NewEvent)| {
        let mut new = contact();
        change(&mut new);
        try_append(&world, &store, &new.event_id.to_string(), new).await
    };
    let is_refused = |result: Result<()>| matches!(result, Err(Error::SensitiveInTheClear { .. }));
    assert!(append(&|_| ()).await.is_ok());
    assert!(append(&|new| new.event_type = "Whole".into()).await.is_ok());
    assert!(is_refused(append(&|new| new.event_type = "Plain".into()).await));
    assert!(append(&|new| new.payload = br#"{"email":"b@x","x":1}"#.to_vec()).await.is_ok());
    assert!(is_refused(append(&|new| (new.event_type, new.payload) = ("Plain".into(), b"{}".to_vec())).await));
    let raw = NewEvent::raw("Plain", 1, contact().payload);
    assert!(raw == raw.clone() && try_append(&world, &store, "raw", raw).await.is_ok(), "bytes say nothing");
    // A container whose parts are protected, and bytes in which it is not there.
    let parts = event("Parts").version(1).protect(&["/list/*/a"], Owner::Aggregate);
    let store = world.store(Schemas::new([parts]).unwrap()).await;
    let mut new = NewEvent::json("Parts", 1, &object("list", Sensitive::from(vec![object("a", 1)]))).unwrap();
    new.payload = b"{}".to_vec();
    assert!(is_refused(try_append(&world, &store, "parts", new).await));
}

#[tokio::test]
async fn i2_a_sensitive_of_a_type_that_is_not_registered_is_not_stored() {
    #[derive(Serialize, Deserialize)]
    struct Shipped {
        to: Sensitive<String>,
    }
    impl EventPayload for Shipped {
        const TYPE: &'static str = "Shipped";
        const VERSION: u32 = 1;
    }
    events! { enum OrderEvent { Shipped(Shipped) } }
    let world = World::new();
    let store = world.store(Schemas::builder([event("Met").version(1)]).allow_unknown_types().build().unwrap()).await;
    let shipped = || Shipped { to: "Ada".into() };
    for new in [NewEvent::of(&shipped()), NewEvent::of(&OrderEvent::from(shipped())), NewEvent::json("Shipped", 1, &shipped())] {
        let error = try_append(&world, &store, "1", new.unwrap()).await.unwrap_err();
        assert!(matches!(&error, Error::SensitiveInTheClear { pointer, .. } if pointer.as_str() == "/to"), "{error:?}");
    }
}

// ---- odd JSON

const RAW: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    note: Value,
}

/// An event that was stored before the store was wrapped.
async fn stored(world: &World, payload: &str) {
    let mut tx = world.db.begin();
    let new = NewEvent::raw("Noted", 1, payload).with_metadata(payload);
    MemoryStore::new().append(&mut tx, &aggregate("Order", "1"), Any, &[new]).await.unwrap();
    tx.commit().unwrap();
}

/// The one event of the stream, read under this schema.
async fn read_with(world: &World, schema: EventSchema) -> Result<PersistedEvent> {
    let store = world.store(Schemas::new([schema]).unwrap()).await;
    world.read(&store, "1").await.map(|mut events| events.remove(0))
}

#[tokio::test]
async fn a_name_that_serde_json_keeps_for_itself_is_refused_at_append() {
    let deep = format!(r#"{{"customer_id":"42","list":[{{"{RAW}":"{{\"email\":\"live@example\"}}"}}]}}"#);
    let spelled = r#"{"contact":{"\u0024serde_json::private::\u004eumber":"12"}}"#;
    let mut object = serde_json::Map::new();
    object.insert(RAW.to_owned(), json!("no json"));
    let world = World::new();
    for is_protected in [false, true] {
        for is_strict in [false, true] {
            let schema = event("Noted").version(1);
            let schema = if is_protected { schema.protect(&["/list/*/email"], customer()) } else { schema };
            let schemas = Schemas::builder([schema]);
            let store = world.store(if is_strict { schemas.deny_unreadable_payloads() } else { schemas }.build().unwrap()).await;
            for (new, place) in [
                (NewEvent::raw("Noted", 1, deep.as_str()), format!("/list/0/{RAW}")),
                (NewEvent::raw("Noted", 1, spelled), format!("/contact/{NUMBER}")),
                (NewEvent::json("Noted", 1, &Note { note: Value::Object(object.clone()) }).unwrap(), format!("/note/{RAW}")),
            ] {
                let error = try_append(&world, &store, "1", new).await.unwrap_err();
                assert!(matches!(&error, Error::PrivateMember { pointer, .. } if pointer.as_str() == place), "{error:?}");
            }
            // As a value it is a text like any other.
            try_append(&world, &store, "2", NewEvent::raw("Noted", 1, format!(r#"{{"note":"{RAW}"}}"#))).await.unwrap();
        }
    }
}

/// What `decode` could not read is not stored, wherever it stands; and what is protected is not told, names included.
#[tokio::test]
async fn i9_a_private_name_in_a_protected_value_is_refused_and_nothing_around_it_is_shown() {
    #[derive(Serialize, Deserialize)]
    struct Whole {
        contacts: Sensitive<BTreeMap<String, Value>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        contacts: BTreeMap<String, Sensitive<Value>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Parts {
        contacts: Sensitive<Vec<BTreeMap<String, Value>>>,
    }
    let secret = "ada@example.org";
    let value = |name: &str| json!({ name: "12" });
    let contact = |name: &str| BTreeMap::from([(secret.to_owned(), value(name))]);
    let customer = || Owner::Aggregate;
    for name in [RAW, NUMBER, "$serde_json::private::ada@example.org"] {
        let last = if name.contains(secret) { "$serde_json::private::***" } else { name };
        let typed = |value: &dyn Fn() -> Result<NewEvent>| value().unwrap();
        let whole = typed(&|| NewEvent::json("Noted", 1, &Whole { contacts: contact(name).into() }));
        let flat = typed(&|| NewEvent::json("Noted", 1, &Flat { contacts: object("a", value(name).into()) }));
        let parts = typed(&|| {
            NewEvent::json("Noted", 1, &Parts { contacts: vec![object("a", json!(1)), object("b", json!([contact(name)]))].into() })
        });
        let clear = NewEvent::raw("Noted", 1, json!({ "a": "x", "open": contact(name) }).to_string());
        let protecting = |pointers: &[&str]| event("Noted").version(1).protect(pointers, customer());
        for (new, schema, place) in [
            (whole.clone(), protecting(&["/contacts"]), format!("/contacts/***/{last}")),
            (whole, event("Noted").version(1).protect_whole(customer()), format!("/***/***/{last}")),
            (flat, protecting(&["/a"]), format!("/a/{last}")),
            (parts, protecting(&["/contacts/*/a", "/contacts/*/b"]), format!("/contacts/1/b/***/***/{last}")),
            (clear, protecting(&["/a"]), format!("/open/{secret}/{name}")),
        ] {
            let world = World::new();
            let store = world.store(Schemas::new([schema]).unwrap()).await;
            let payload = new.payload.clone();
            let error = try_append(&world, &store, "1", new).await.unwrap_err();
            assert!(matches!(&error, Error::PrivateMember { pointer, .. } if pointer.as_str() == place), "{place}: {error:?}");
            // That is what decode does, which does not know what was protected.
            let error = redacted(std::str::from_utf8(&payload).unwrap(), &[]).decode::<Value>().unwrap_err();
            let hidden = matches!(&error, Error::PrivateMember { pointer, .. } if pointer.as_str().ends_with(&format!("/***/{last}")) || pointer.as_str() == format!("/***/{last}"));
            assert!(hidden && !format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_stored_name_that_serde_json_keeps_for_itself_is_read_as_it_is_or_named() {
    for (name, text) in [(RAW, r#""{\"email\":\"a@x\"}""#), (RAW, r#""no json""#), (NUMBER, r#""12""#), (NUMBER, "[]"), (RAW, "1")] {
        let world = World::new();
        let payload = format!(r#"{{"note":{{"{name}":{text}}},"n":1.5}}"#);
        stored(&world, &payload).await;
        let noted = || event("Noted").version(1);
        // Nobody looks.
        let read = read_with(&world, noted()).await.unwrap();
        assert_eq!(String::from_utf8(read.payload.clone()).unwrap(), payload);
        // It may have been protected, and its names with it.
        let (place, shown) = (format!("/note/{name}"), format!("/***/{name}"));
        for error in [read.decode::<Value>().unwrap_err(), read.decode::<BTreeMap<String, serde::de::IgnoredAny>>().map(drop).unwrap_err()]
        {
            assert!(matches!(&error, Error::PrivateMember { pointer, .. } if pointer.as_str() == shown), "{error:?}");
        }
        // Declarative steps work on the text, and steps over the value get what is there.
        let changed = read_with(&world, noted().version(2).change(1, Changes::new().set_default("/x", 1))).await.unwrap();
        assert_eq!(String::from_utf8(changed.payload).unwrap(), payload.replace("1.5}", r#"1.5,"x":1}"#));
        let content: Value = serde_json::from_str(text).unwrap();
        let expected = content.clone();
        let over_value = || {
            let expected = expected.clone();
            noted().version(2).upcast_with(1, move |value: Value, context: &StepContext<'_>| {
                assert_eq!(value["note"].as_object().unwrap().iter().collect::<Vec<_>>(), [(&name.to_owned(), &expected)]);
                assert_eq!(context.metadata(), Some(&value));
                Ok::<_, Infallible>(value)
            })
        };
        let same = read_with(&world, over_value()).await.unwrap();
        assert!(String::from_utf8(same.payload).unwrap().contains(&format!(r#"{{"{name}":{text}}}"#)));
        // Types may have a Value in them, which would read something else.
        let typed = |schema: EventSchema, from| schema.version(from + 1).upcast(from, |note: Note| Ok::<_, Infallible>(note));
        for schema in [typed(noted(), 1), typed(over_value(), 2)] {
            let error = read_with(&world, schema).await.unwrap_err();
            assert!(
                matches!(&error, Error::Upcast { problem, .. } if problem.contains(&shown) && problem.contains("keeps for itself")),
                "{error:?}"
            );
        }
        // The way out that the errors name.
        let moved = noted().version(2).change(1, Changes::new().move_value(place, "/note/raw"));
        let note = read_with(&world, typed(moved, 2)).await.unwrap().decode::<Note>().unwrap();
        assert_eq!(note, Note { note: json!({ "raw": content }) });
    }
}

mod repeated {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        a: Option<Value>,
        b: Option<Inner>,
        c: Option<Vec<Inner>>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        x: Option<u8>,
        y: Option<BTreeMap<String, u8>>,
    }

    fn object(members: Vec<(&'static str, String)>) -> String {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    fn inner() -> impl Strategy<Value = String> {
        let number = || prop::sample::select(vec!["1", "2", "3"]).prop_map(str::to_owned);
        let map = prop::collection::vec((prop::sample::select(vec!["p", "q", "\\u0070"]), number()), 0..3).prop_map(object);
        let member = prop_oneof![number().prop_map(|x| ("x", x)), number().prop_map(|x| ("\\u0078", x)), map.prop_map(|y| ("y", y))];
        prop::collection::vec(member, 0..4).prop_map(object)
    }

    fn order() -> impl Strategy<Value = String> {
        let list = prop::collection::vec(inner(), 0..3).prop_map(|list| format!("[{}]", list.join(",")));
        let member = prop_oneof![
            inner().prop_map(|a| ("a", a)),
            inner().prop_map(|b| ("b", b)),
            inner().prop_map(|b| ("\\u0062", b)),
            list.prop_map(|c| ("c", c)),
        ];
        prop::collection::vec(member, 0..5).prop_map(object)
    }

    fn read(payload: &str, schema: EventSchema, is_strict: bool) -> PersistedEvent {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let first = Schemas::builder([event("Noted").version(1)]);
            let writer = world.store(if is_strict { first.deny_unreadable_payloads() } else { first }.build().unwrap()).await;
            world.append(&writer, "1", &[NewEvent::raw("Noted", 1, payload)]).await;
            read_with(&world, schema).await.unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever kind of step it takes, and none: of members that are repeated, the last one is read.
        #[test]
        fn all_kinds_of_steps_read_the_last_one(payload in order(), is_strict: bool) {
            let expected: Value = serde_json::from_str(&payload).unwrap();
            let expected: Order = serde_json::from_value(expected).unwrap();
            let noted = || event("Noted").version(1);
            let to_next = |changes| noted().version(2).change(1, changes);
            for schema in [
                noted(),
                noted().version(2).upcast(1, |order: Order| Ok::<_, Infallible>(order)),
                noted().version(2).upcast(1, |order: Value| Ok::<_, Infallible>(order)),
                to_next(Changes::new().set_default("/other", 1)),
                to_next(Changes::new().move_value("/a", "/moved").move_value("/moved", "/a")),
                to_next(Changes::new().map_value("/b", |inner: Option<Inner>| inner)),
                to_next(Changes::new().set_default("/other", 1)).version(3).upcast(2, |order: Order| Ok::<_, Infallible>(order)),
            ] {
                let event = read(&payload, schema, is_strict);
                prop_assert_eq!(event.decode::<Order>().unwrap(), expected.clone());
                let value = event.decode::<Value>().unwrap();
                prop_assert_eq!(serde_json::from_value::<Order>(value).unwrap(), expected.clone());
            }
        }
    }
}

// ---- erasures in types that serde reads through a buffer

/// An event as a reader gets it, with these places redacted.
fn redacted(payload: &str, places: &[&str]) -> PersistedEvent {
    let event = NewEvent::raw("Paid", 1, payload);
    let mut event = PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    event.redacted = places.iter().map(|place| JsonPointer::parse(place).unwrap()).collect();
    event
}

mod buffered {
    use super::*;
    use proptest::prelude::*;

    type Field = Option<Sensitive<Value>>;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Three {
        a: Sensitive<Value>,
        #[serde(default)]
        b: Field,
        c: Nested,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Nested {
        List(Vec<Sensitive<Value>>),
        Object { x: Sensitive<Value> },
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, clippy::large_enum_variant)]
    #[serde(tag = "kind")]
    enum Internal {
        Other { d: u8 },
        Card(Three),
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind", content = "content")]
    enum Adjacent {
        Card(Three),
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, clippy::large_enum_variant)]
    #[serde(untagged)]
    enum Untagged {
        Other { d: u8 },
        Card(Three),
    }

    #[derive(Debug, Deserialize)]
    struct Flat<T> {
        #[serde(flatten)]
        inner: T,
    }

    #[derive(Debug, Deserialize)]
    struct Wrapper<T> {
        inner: T,
    }

    fn value() -> impl Strategy<Value = Value> {
        prop::sample::select(vec![
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(0.1),
            json!(""),
            json!("erased"),
            json!("e\n"),
            json!([]),
            json!([0]),
            json!(["erased"]),
            json!({}),
            json!({"a": "erased"}),
            json!({"x": null}),
        ])
    }

    /// A value, and whether it stands in for one that was erased.
    fn field() -> impl Strategy<Value = (Value, bool)> {
        (value(), any::<bool>())
    }

    fn expected((value, is_erased): &(Value, bool)) -> Sensitive<Value> {
        if *is_erased { Sensitive::Redacted } else { Sensitive::Present(value.clone()) }
    }

    fn check<T: serde::de::DeserializeOwned>(
        document: &Value,
        around: &str,
        erased: &[String],
        expected: &Three,
        get: impl Fn(T) -> Three,
    ) -> std::result::Result<(), TestCaseError> {
        let erased: Vec<String> = erased.iter().map(|place| format!("{around}{place}")).collect();
        let event = redacted(&document.to_string(), &erased.iter().map(String::as_str).collect::<Vec<_>>());
        match event.decode::<T>() {
            Ok(value) => prop_assert_eq!(&get(value), expected, "{} {}", std::any::type_name::<T>(), document),
            Err(error) => prop_assert!(false, "{error} {} {document}", std::any::type_name::<T>()),
        }
        Ok(())
    }

    macro_rules! get {
        ($pattern:pat => $value:expr) => {
            |it| match it {
                $pattern => $value,
                #[allow(unreachable_patterns)]
                other => panic!("{other:?}"),
            }
        };
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// A `Sensitive` is redacted if its place is, whatever stands there, and whatever serde does on the way.
        #[test]
        fn i4_an_erasure_is_exact_in_any_type(a in field(), b in field(), x in field(), list in any::<bool>()) {
            let mut three = json!({"a": a.0, "b": b.0});
            three["c"] = if list { json!([x.0, x.0]) } else { json!({"x": x.0}) };
            let nested = || if list { Nested::List(vec![expected(&x), expected(&x)]) } else { Nested::Object { x: expected(&x) } };
            let b_read = if b == (json!(null), false) { None } else { Some(expected(&b)) };
            let expected = Three { a: expected(&a), b: b_read, c: nested() };
            let inner: &[&str] = if list { &["/c/0", "/c/1"] } else { &["/c/x"] };
            let places = [(a.1, &["/a"][..]), (b.1, &["/b"]), (x.1, inner)];
            let erased: Vec<String> =
                places.into_iter().filter(|(is_erased, _)| *is_erased).flat_map(|(_, places)| places).map(|place| (*place).to_owned()).collect();
            check::<Three>(&three, "", &erased, &expected, |it| it)?;
            check(&three, "", &erased, &expected, get!(Untagged::Card(it) => it))?;
            check(&three, "", &erased, &expected, |it: Flat<Three>| it.inner)?;
            check(&three, "", &erased, &expected, get!(Flat { inner: Untagged::Card(it) } => it))?;
            check(&json!({"inner": three}), "/inner", &erased, &expected, |it: Wrapper<Flat<Three>>| it.inner.inner)?;
            check(&json!([three]), "/0", &erased, &expected, |it: (Untagged,)| get!(Untagged::Card(it) => it)(it.0))?;
            let adjacent = json!({"content": three, "kind": "Card"});
            check(&adjacent, "/content", &erased, &expected, |Adjacent::Card(it)| it)?;
            check(&adjacent, "/content", &erased, &expected, |Flat { inner: Adjacent::Card(it) }| it)?;
            let mut internal = three;
            internal["kind"] = json!("Card");
            check(&internal, "", &erased, &expected, get!(Internal::Card(it) => it))?;
            check(&internal, "", &erased, &expected, get!(Flat { inner: Internal::Card(it) } => it))?;
            check(&json!({"inner": internal}), "/inner", &erased, &expected, get!(Wrapper { inner: Internal::Card(it) } => it))?;
        }
    }
}

#[test]
fn i4_a_type_that_knows_of_no_redactions_finds_the_stand_in_beside_those_that_do() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Paid {
        Card {
            plain: String,
            text: Sensitive<String>,
            none: Option<String>,
            note: Sensitive<Option<String>>,
            flag: bool,
            is: Sensitive<bool>,
        },
    }
    let payload = r#"{"kind":"Card","plain":"erased","text":"erased","none":null,"note":null,"flag":false,"is":false}"#;
    let paid = |text, note, is| Paid::Card { plain: "erased".into(), text, none: None, note, flag: false, is };
    let (present, none, no) = (Sensitive::from("erased"), Sensitive::Present(None), Sensitive::Present(false));
    for (places, expected) in [
        (&["/plain"][..], paid(present.clone(), none.clone(), no)),
        (&["/plain", "/text"], paid(Sensitive::Redacted, none.clone(), no)),
        (&["/none"], paid(present.clone(), none.clone(), no)),
        (&["/none", "/note"], paid(present.clone(), Sensitive::Redacted, no)),
        (&["/flag"], paid(present.clone(), none.clone(), no)),
        (&["/is"], paid(present.clone(), none.clone(), Sensitive::Redacted)),
        (&["/plain", "/text", "/none", "/note", "/flag", "/is"], paid(Sensitive::Redacted, Sensitive::Redacted, Sensitive::Redacted)),
    ] {
        assert_eq!(redacted(payload, places).decode::<Paid>().unwrap(), expected, "{places:?}");
    }
}

#[test]
fn i4_a_list_is_live_though_an_element_is_erased() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Lists {
        Of { list: Sensitive<Vec<Sensitive<Vec<String>>>>, map: Sensitive<BTreeMap<String, Sensitive<String>>> },
    }
    let event = redacted(r#"{"list":[["erased"],["x"]],"map":{"a":"erased"}}"#, &["/list/0", "/map/a"]);
    let list = vec![Sensitive::Redacted, vec!["x".to_owned()].into()].into();
    let expected = Lists::Of { list, map: BTreeMap::from([("a".to_owned(), Sensitive::Redacted)]).into() };
    assert_eq!(event.decode::<Lists>().unwrap(), expected);
}

#[test]
fn i4_what_is_inside_of_something_erased_is_erased() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Contact {
        email: Sensitive<String>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Plain {
        contact: Contact,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Card { contact: Contact },
    }
    let event = redacted(r#"{"kind":"Card","contact":{"email":"erased@invalid"}}"#, &["/contact"]);
    let contact = || Contact { email: Sensitive::Redacted };
    assert_eq!(event.decode::<Plain>().unwrap(), Plain { contact: contact() });
    assert_eq!(event.decode::<Tagged>().unwrap(), Tagged::Card { contact: contact() });
}

#[test]
fn i4_whatever_is_inside_of_something_erased_is_erased_in_a_buffer_too() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Contact {
        number: Sensitive<i64>,
        float: Sensitive<f64>,
        flag: Sensitive<bool>,
        text: Sensitive<String>,
        escaped: Sensitive<String>,
        null: Sensitive<Option<u8>>,
        optional: Option<Sensitive<u8>>,
        empty: Sensitive<Vec<u8>>,
        list: Sensitive<Vec<Sensitive<u8>>>,
        deep: BTreeMap<String, Sensitive<u8>>,
        plain: u8,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Direct {
        contact: Contact,
        number: Sensitive<i64>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Card(Direct),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Card(Direct),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        card: Direct,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Whole {
        Card { contact: Sensitive<Contact>, number: Sensitive<i64> },
    }
    let contact = r#"{"number":5,"float":0.5,"flag":true,"text":"e","escaped":"\n","null":null,"optional":null,"empty":[],"list":[0],"deep":{"a":5},"plain":5}"#;
    let payload = format!(r#"{{"kind":"Card","contact":{contact},"number":5}}"#);
    // In any number at once: the live one beside has the same value as one in it.
    for (places, is_erased) in [(&["/contact"][..], false), (&["/contact", "/number"], true), (&["/contact", "/contact/text"], false)] {
        let event = redacted(&payload, places);
        let number = || if is_erased { Sensitive::Redacted } else { 5.into() };
        let expected = || Direct {
            contact: Contact {
                number: Sensitive::Redacted,
                float: Sensitive::Redacted,
                flag: Sensitive::Redacted,
                text: Sensitive::Redacted,
                escaped: Sensitive::Redacted,
                null: Sensitive::Redacted,
                optional: Some(Sensitive::Redacted),
                empty: Sensitive::Redacted,
                list: Sensitive::Redacted,
                deep: BTreeMap::from([("a".to_owned(), Sensitive::Redacted)]),
                plain: 5,
            },
            number: number(),
        };
        let is_exact = |contact: &Contact| *contact == expected().contact;
        let same = |mut card: Direct| {
            // Beside a plain field that is erased, `decode` promises less of an optional Sensitive.
            card.contact.optional = Some(Sensitive::Redacted);
            assert!(is_exact(&card.contact), "{:?}", card.contact);
            assert_eq!(card, expected(), "{places:?}");
        };
        same(event.decode::<Direct>().unwrap());
        let Tagged::Card(card) = event.decode().unwrap();
        same(card);
        let Untagged::Card(card) = event.decode().unwrap();
        same(card);
        same(event.decode::<Flat>().unwrap().card);
        assert_eq!(event.decode::<Whole>().unwrap(), Whole::Card { contact: Sensitive::Redacted, number: number() });
    }
}

/// A buffer of the application's own loses everything that tells a redaction from a value.
#[test]
fn i4_what_may_be_either_is_refused() {
    #[derive(Debug, PartialEq)]
    struct Own<T>(T);
    impl<'de, T: serde::de::DeserializeOwned> Deserialize<'de> for Own<T> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
            let value = Value::deserialize(deserializer)?;
            T::deserialize(value).map(Self).map_err(serde::de::Error::custom)
        }
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Card<T> {
        a: Sensitive<T>,
        b: Sensitive<T>,
    }
    let refused = |event: &PersistedEvent| {
        let error = event.decode::<Own<Card<Option<String>>>>().unwrap_err();
        assert!(matches!(&error, Error::Decode { problem, .. } if problem.contains("may be a value or stand in")), "{error:?}");
    };
    refused(&redacted(r#"{"a":"erased","b":"x"}"#, &["/a"]));
    refused(&redacted(r#"{"a":null,"b":"x"}"#, &["/a"]));
    refused(&redacted(r#"{"a":"x","b":null}"#, &["/b"]));
    // What can't be a value is none.
    let card = redacted(r#"{"a":null,"b":"x"}"#, &["/a"]).decode::<Own<Card<String>>>().unwrap();
    assert_eq!(card, Own(Card { a: Sensitive::Redacted, b: "x".into() }));
}

#[tokio::test]
async fn i9_a_name_that_is_sensitive_gets_into_no_error() {
    struct Members<T>(T);
    impl<T: Serialize + Copy> Serialize for Members<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let name = || Sensitive::Present("ada@example.org");
            serializer.collect_map([(name(), self.0), (name(), self.0)])
        }
    }
    let names = BTreeMap::from([("ada@example.org", f64::NAN)]);
    for shown in
        [problem(&object("m", Members(1))), problem(&object("m", Members(f64::NAN))), problem(&object("m", Sensitive::Present(names)))]
    {
        assert!(shown.contains("/m/***") && !shown.contains("ada"), "{shown}");
    }

    #[derive(Serialize)]
    struct One {
        m: BTreeMap<Name, Sensitive<u8>>,
    }
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Name;
    impl Serialize for Name {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            Sensitive::Present("ada@example.org").serialize(serializer)
        }
    }
    let one = One { m: BTreeMap::from([(Name, Sensitive::Present(1))]) };
    let world = World::new();
    let store = world.store(Schemas::new([event("Met").version(1)]).unwrap()).await;
    let error = try_append(&world, &store, "1", NewEvent::json("Met", 1, &one).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::SensitiveInTheClear { .. }) && !format!("{error} {error:?}").contains("ada"), "{error:?}");
}

#[tokio::test]
async fn a_name_that_serde_json_keeps_for_itself_costs_no_more_the_deeper_it_is() {
    let schema = || event("Noted").version(1).version(2).upcast(1, |old: Value| Ok::<_, Infallible>(old));
    let deep = |name: &str| {
        let inner = format!(r#"{{"n":[{}0],"{name}":1}}"#, "0,".repeat(100_000));
        format!("{}{inner}{}", r#"{"a":"#.repeat(120), "}".repeat(120))
    };
    let mut took = Vec::new();
    for name in ["any", "$serde_json::private::RawValue"] {
        let world = World::new();
        stored(&world, &deep(name)).await;
        let start = std::time::Instant::now();
        let read = read_with(&world, schema()).await.unwrap();
        took.push(start.elapsed());
        assert!(String::from_utf8_lossy(&read.payload).contains(&format!("\"{name}\":1")), "{name}");
    }
    assert!(took[1] < took[0] * 12, "{took:?}");
}

#[test]
fn i4_a_deserialize_that_keeps_json_as_text_knows_what_is_erased_or_is_refused() {
    #[derive(Debug, PartialEq)]
    struct Kept<T>(Inner<T>);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner<T> {
        name: Sensitive<T>,
        other: Sensitive<T>,
    }
    impl<'de, T: serde::de::DeserializeOwned> Deserialize<'de> for Kept<T> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
            let text = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
            serde_json::from_str(text.get()).map(Self).map_err(serde::de::Error::custom)
        }
    }
    let there = |value: &str| Sensitive::Present(value.to_owned());
    let erased = |payload: &str| redacted(payload, &["/name"]);
    let null = erased(r#"{"name":null,"other":"o"}"#).decode::<Kept<String>>().unwrap();
    assert_eq!(null, Kept(Inner { name: Sensitive::Redacted, other: there("o") }));
    for unclear in [r#"{"name":"gone","other":"o"}"#, r#"{"name":"o","other":"gone"}"#] {
        let refused = erased(unclear).decode::<Kept<String>>();
        assert!(
            matches!(&refused, Err(Error::Decode { problem, .. }) if problem.contains("a Sensitive went through a buffer")),
            "{refused:?}"
        );
    }
    let unclear = erased(r#"{"name":null,"other":"o"}"#).decode::<Kept<Option<String>>>();
    assert!(matches!(unclear, Err(Error::Decode { .. })), "erased, and not a null that was written: {unclear:?}");
    let inside = redacted(r#"{"a":[{"name":null,"other":"o"}]}"#, &["/a/0/name"]).decode::<BTreeMap<String, Vec<Kept<String>>>>().unwrap();
    assert_eq!(inside["a"][0].0.name, Sensitive::Redacted);
    // What `Sensitive` says of an Option around it: nobody asks it about a null, so there is nothing to refuse.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Outside {
        name: Option<Sensitive<String>>,
        other: Option<Sensitive<String>>,
    }
    struct KeptOutside(Outside);
    impl<'de> Deserialize<'de> for KeptOutside {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
            let text = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
            serde_json::from_str(text.get()).map(Self).map_err(serde::de::Error::custom)
        }
    }
    let outside = erased(r#"{"name":null,"other":"o"}"#).decode::<KeptOutside>().unwrap().0;
    assert_eq!(outside, Outside { name: None, other: Some(there("o")) });
    let read = erased(r#"{"name":null,"other":"o"}"#).decode::<Outside>().unwrap();
    assert_eq!(read, Outside { name: Some(Sensitive::Redacted), other: Some(there("o")) });
    assert!(erased(r#"{"name":"gone","other":"o"}"#).decode::<KeptOutside>().is_err(), "no null, so it is asked");
    let live = redacted(r#"{"name":null,"other":"o"}"#, &["/elsewhere"]).decode::<Kept<Option<String>>>().unwrap();
    assert_eq!(live.0.name, Sensitive::Present(None), "nothing in the text is erased");
}
