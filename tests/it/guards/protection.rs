//! The schema lock: does what is protected fit the types that it is read into?

use eventseal::AggregateVersion;
use eventseal::Error;
use eventseal::GlobalPosition;
use eventseal::JsonPointer;
use eventseal::NewEvent;
use eventseal::PersistedEvent;
use eventseal::aggregate;
use eventseal::error::EventFault;
use eventseal::schema::EventSchema;
use eventseal::subject;
use eventseal::{Event, Owner, Schemas, Sensitive, event};
use eventseal_testing::{ChangeKind, GuardError, SchemaChange, SchemaLock};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The changes that a lock reports for version 1 of `Typo`, if it is read as this type. They are the same whether the
/// lock checks, records or accepts, and nothing is written.
fn found<T: serde::de::DeserializeOwned>(typo: EventSchema) -> Vec<SchemaChange> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let schemas = Schemas::new([typo]).unwrap();
    let lock = SchemaLock::new(&path, &schemas).shape_of::<T>("Typo", 1);
    let changes = |result| match result {
        Err(GuardError::Schema { changes }) => changes,
        Ok(_) => Vec::new(),
        Err(other) => panic!("{other:?}"),
    };
    let found = changes(lock.record());
    if !found.is_empty() {
        assert_eq!(found, changes(lock.check()));
        assert_eq!(found, changes(lock.accept()));
        assert!(
            !std::fs::read_to_string(&path).unwrap_or_default().contains("Typo"),
            "what contradicts itself is not recorded"
        );
    }
    found
}

fn said<T: serde::de::DeserializeOwned>(typo: EventSchema) -> Vec<String> {
    found::<T>(typo).iter().map(|found| found.to_string().replace(std::any::type_name::<T>(), "T")).collect()
}

fn protecting(pointers: &[&str]) -> EventSchema {
    event("Typo").version(1).protect(pointers, Owner::Aggregate)
}

#[test]
fn a_misspelt_pointer_is_caught() {
    #[derive(Serialize, Deserialize)]
    struct Typo {
        email: Sensitive<String>,
    }
    impl Event for Typo {
        const TYPE: &'static str = "Typo";
        const VERSION: u32 = 1;
    }
    let schemas = Schemas::builder([protecting(&["/emial"])]).decodes::<Typo>().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let report = SchemaLock::new(&path, &schemas).check().unwrap_err().to_string();
    let name = std::any::type_name::<Typo>();
    for line in [
        format!(
            "- Typo version 1: /email is a Sensitive in {name}, but not protected: it is stored in the clear; protect \
             it\n"
        ),
        format!("- Typo version 1: /emial is protected, but {name} has no such member: correct the pointer"),
    ] {
        assert!(report.contains(&line), "{report}");
    }
    assert_eq!(found::<Typo>(protecting(&["/emial"])).len(), 2);
    assert_eq!(found::<Typo>(protecting(&["/email"])), []);
    assert_eq!(found::<Typo>(event("Typo").version(1).protect_whole(Owner::Aggregate)), []);

    // The lock that was recorded before is not overwritten either.
    let right = Schemas::builder([protecting(&["/email"])]).decodes::<Typo>().build().unwrap();
    SchemaLock::new(&path, &right).record().unwrap();
    let before = std::fs::read_to_string(&path).unwrap();
    SchemaLock::new(&path, &schemas).accept().unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn what_is_protected_can_be_erased() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Plain {
        name: String,
    }
    let erased = said::<Plain>(protecting(&["/name"]));
    assert_eq!(
        erased,
        ["Typo version 1: /name is protected, but T can't be read any more once null stands in for it: make it a \
            Sensitive or an Option, or name a stand-in that fits with redact_as"]
    );
    assert_eq!(said::<Plain>(protecting(&["/name"]).redact_as("/name", json!("?"))), [""; 0]);
    assert_eq!(said::<Plain>(protecting(&["/name"]).redact_as("/name", json!(0))).len(), 1);

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Lenient {
        name: Option<String>,
        note: Value,
        #[serde(default, deserialize_with = "null_is_nothing")]
        tags: Vec<String>,
    }
    fn null_is_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        Option::deserialize(deserializer).map(Option::unwrap_or_default)
    }
    assert_eq!(said::<Lenient>(protecting(&["/name", "/note", "/tags"])), [""; 0]);

    /// The type that a step reads, which has no protected member.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Trimmed {
        name: Sensitive<IgnoredAny>,
    }
    assert_eq!(said::<Trimmed>(protecting(&["/name"])), [""; 0]);

    /// A type of which no sample can be made up.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Odd {
        odd: Nothing,
        born: String,
    }
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Nothing;
    impl TryFrom<String> for Nothing {
        type Error = &'static str;
        fn try_from(_: String) -> Result<Self, &'static str> {
            Err("nothing will do")
        }
    }
    assert_eq!(said::<Odd>(protecting(&["/born"])).len(), 1, "the shape tells, too");
    assert_eq!(said::<Odd>(protecting(&["/born"]).redact_as("/born", json!("?"))), [""; 0]);
}

#[test]
fn the_pointer_to_the_owner_must_lead_somewhere() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Typo {
        customer_id: String,
        guests: Vec<Guest>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Guest {
        id: u32,
        name: Sensitive<String>,
    }
    let guests = |id| event("Typo").version(1).protect(&["/guests/*/name"], subject("Guest", id));
    assert_eq!(said::<Typo>(guests("/guests/*/id")), [""; 0]);
    assert_eq!(said::<Typo>(guests("/customer_id")), [""; 0]);
    let found = said::<Typo>(guests("/guests/*/ID"));
    let expected = "Typo version 1: the owner of /guests/*/name is named at /guests/*/ID, but T has no such member: \
        correct the pointer to the owner's id";
    assert_eq!(found, [expected]);
}

#[test]
fn nothing_is_said_of_what_is_not_known() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Known {
        #[serde(alias = "mail")]
        email: Sensitive<String>,
        phones: HashMap<String, Sensitive<String>>,
        point: (Sensitive<f64>, Sensitive<f64>),
        person: Option<Person>,
        kind: Kind,
        ignored: IgnoredAny,
        any: Value,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Person {
        name: Sensitive<String>,
        parents: Vec<Person>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Kind {
        Plain,
        Named { name: Sensitive<String> },
    }
    let rest = [
        "/point/0",
        "/point/1",
        "/person/name",
        "/kind/Named/name",
        "/phones/home",
        "/any/x/y",
        "/ignored/x",
        "/person/parents/*/name",
    ];
    assert_eq!(said::<Known>(protecting(&[&["/email"], &rest[..]].concat())), [""; 0]);
    assert_eq!(said::<Known>(protecting(&[&["/mail"], &rest[..]].concat())), [""; 0], "by its other name");
    let found = said::<Known>(protecting(&["/person/parents/*/nmae"]));
    let in_the_clear = |place| {
        format!("Typo version 1: {place} is a Sensitive in T, but not protected: it is stored in the clear; protect it")
    };
    let places = ["/email", "/kind/Named/name", "/person/name", "/phones/*", "/point/0", "/point/1"];
    assert_eq!(found, places.map(in_the_clear));

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Flat {
        #[serde(flatten)]
        person: Person,
    }
    assert_eq!(said::<Flat>(protecting(&["/nmae"])), [""; 0]);
    assert_eq!(said::<Value>(protecting(&["/nmae"])), [""; 0]);
    assert_eq!(said::<HashMap<String, Value>>(protecting(&["/nmae"])), [""; 0]);
}

#[test]
fn a_read_model_may_leave_members_out() {
    macro_rules! payload {
        ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
            #[derive(Serialize, Deserialize)]
            struct $name { $($field: $type),* }
            impl Event for $name {
                const TYPE: &'static str = "Typo";
                const VERSION: u32 = 1;
            }
        )*};
    }
    payload! { ReadModel { total: u32 } Written { total: u32, email: Sensitive<String> } }
    let folder = tempfile::tempdir().unwrap();
    let lock = |schemas: &Schemas| SchemaLock::new(folder.path().join("schemas.json"), schemas).record();
    let both = Schemas::builder([protecting(&["/email"])]).decodes::<ReadModel>().decodes::<Written>().build().unwrap();
    lock(&both).unwrap();
    let alone = Schemas::builder([protecting(&["/email"])]).decodes::<ReadModel>().build().unwrap();
    let Err(GuardError::Schema { changes }) = lock(&alone) else { panic!("the member is nowhere") };
    assert!(
        changes
            .iter()
            .any(|found| matches!(&found.change, ChangeKind::NoSuchMember { pointer, .. } if pointer == "/email")),
        "{changes:?}"
    );
}

/// Types whose `Deserialize` keeps a value in a buffer of its own.
macro_rules! kept {
    ($name:ident) => {
        #[derive(Debug)]
        #[allow(dead_code, reason = "only whether it is read matters")]
        struct $name {
            name: Sensitive<String>,
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    name: Sensitive<String>,
                }
                let fields: Fields =
                    serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
                Ok(Self { name: fields.name })
            }
        }
    };
}

kept!(Kept);
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only whether it is read matters")]
struct Clear {
    name: Sensitive<String>,
}
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only whether it is read matters")]
struct Plain {
    name: String,
}
#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
#[allow(dead_code, reason = "only whether it is read matters")]
enum Internal<T> {
    Card(T),
    Cash { paid: u8 },
}
#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "only whether it is read matters")]
enum Untagged<T> {
    Cash { paid: u8 },
    Card(T),
}
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only whether it is read matters")]
struct Flat<T> {
    kind: String,
    #[serde(flatten)]
    inner: T,
}

fn check<T: serde::de::DeserializeOwned + std::fmt::Debug>(stand_in: &Value, is_readable: bool) {
    let schema = protecting(&["/name"]).redact_as("/name", stand_in.clone());
    let schemas = Schemas::new([schema]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lock = || SchemaLock::new(folder.path().join("schemas.json"), &schemas).shape_of::<T>("Typo", 1);
    let live = json!({"kind": "Card", "name": "Ada", "total": 7});
    let lock = lock().sample("Typo", 1, json!({"kind": "Cash", "paid": 1})).sample("Typo", 1, live.clone());
    let found = match lock.record() {
        Err(GuardError::Schema { changes }) => changes,
        other => other.map(|_| Vec::new()).unwrap(),
    };
    let target = std::any::type_name::<T>();
    let expected = ChangeKind::UnreadableOnceErased { pointer: "/name".to_owned(), stand_in: stand_in.clone(), target };
    let expected = if is_readable { vec![] } else { vec![expected] };
    assert_eq!(found.into_iter().map(|found| found.change).collect::<Vec<_>>(), expected, "{target} {stand_in}");

    // The lock reports exactly the failures that readers meet. No live value is read as a redaction, and no redaction
    // as a live value.
    let read = |name: &Value, redacted: &[&str]| {
        let mut payload = live.clone();
        payload["name"] = name.clone();
        let event = NewEvent::raw("Typo", 1, payload.to_string());
        let mut event =
            PersistedEvent::from_new(aggregate("Typo", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
        event.redacted = redacted.iter().map(|place| JsonPointer::parse(place).unwrap()).collect();
        event.decode::<T>()
    };
    assert!(format!("{:?}", read(&json!("Ada"), &[]).unwrap()).contains("***") || target.contains("Plain"));
    match read(stand_in, &["/name"]) {
        Ok(value) => {
            assert!(
                is_readable && (format!("{value:?}").contains("redacted") || target.contains("Plain")),
                "{value:?}"
            );
        }
        Err(error) => {
            assert!(
                !is_readable && matches!(error, Error::Event { fault: EventFault::Decode { .. }, .. }),
                "{error:?}"
            );
        }
    }
    // A live one that looks the same, where something else is erased.
    if let Ok(value) = read(stand_in, &["/total"]) {
        assert!(!format!("{value:?}").contains("redacted"), "{target} {stand_in}");
    }
}

/// Once something else than `null` stands in for it, a `Sensitive` out of such a buffer can't be told from a live one.
/// It is not decoded, and the lock says so before, wherever in a type it is: also where no type can be traced.
#[test]
fn i4_what_can_not_be_decided_is_not_decoded_and_the_lock_says_so() {
    macro_rules! all {
        ($inner:ty, $stand_in:expr, $is_readable:expr) => {
            check::<$inner>(&$stand_in, $is_readable);
            check::<Internal<$inner>>(&$stand_in, $is_readable);
            check::<Untagged<$inner>>(&$stand_in, $is_readable);
            check::<Flat<$inner>>(&$stand_in, $is_readable);
        };
    }
    // Serde's own buffers lose nothing.
    for stand_in in
        [json!(null), json!("gone"), json!("Ada"), json!(0), json!(7), json!(true), json!({"a": 1}), json!(["gone"])]
    {
        all!(Clear, stand_in, true);
    }
    // Into a text no number, no object and no list is read, so these can be nothing but an erasure.
    for (stand_in, is_readable) in
        [(json!(null), true), (json!(0), true), (json!({"a": 1}), true), (json!("gone"), false)]
    {
        all!(Kept, stand_in, is_readable);
    }
    // Types that do not know of redactions read the stand-in.
    for (stand_in, is_readable) in [(json!("gone"), true), (json!(null), false), (json!(0), false)] {
        all!(Plain, stand_in, is_readable);
    }
}

/// Samples are for types that read them.
#[test]
fn a_sample_of_another_type_says_nothing() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only whether it is read matters")]
    enum Untagged {
        Card { name: String },
    }
    let schemas = Schemas::new([protecting(&["/name"])]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check = |sample: Value| {
        let lock = SchemaLock::new(folder.path().join(format!("{}.json", sample["n"])), &schemas);
        lock.shape_of::<Untagged>("Typo", 1).sample("Typo", 1, sample).record().is_ok()
    };
    assert!(check(json!({"n": 1, "title": "x"})) && check(json!({"n": 2, "name": 1})));
    assert!(!check(json!({"n": 3, "name": "x"})));
}
