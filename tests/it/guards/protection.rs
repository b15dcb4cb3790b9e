//! The schema lock: does what is protected fit the types that it is read into?

use eventseal::testing::{ChangeKind, GuardError, SchemaChange, SchemaLock};
use eventseal::*;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What a lock says of version 1 of `Typo`, read as this type; it is the same whether it checks, records or accepts, and
/// nothing is written.
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
        assert!(!std::fs::read_to_string(&path).unwrap_or_default().contains("Typo"), "what contradicts itself is not recorded");
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
    impl EventPayload for Typo {
        const TYPE: &'static str = "Typo";
        const VERSION: u32 = 1;
    }
    let schemas = Schemas::builder([protecting(&["/emial"])]).decodes::<Typo>().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let report = SchemaLock::new(&path, &schemas).check().unwrap_err().to_string();
    let name = std::any::type_name::<Typo>();
    for line in [
        format!("- Typo version 1: /email is a Sensitive in {name}, but not protected: it is stored in the clear; protect it\n"),
        format!("- Typo version 1: /emial is protected, but {name} has no such member: correct the pointer"),
    ] {
        assert!(report.contains(&line), "{report}");
    }
    assert_eq!(found::<Typo>(protecting(&["/emial"])).len(), 2);
    assert_eq!(found::<Typo>(protecting(&["/email"])), []);
    assert_eq!(found::<Typo>(event("Typo").version(1).protect_whole(Owner::Aggregate)), []);

    // What was recorded before is not overwritten either.
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
        ["Typo version 1: /name is protected, but T can't be read any more once null stands in for it: make it a Sensitive or an Option, \
          or name a stand-in that fits with redact_as"]
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

    /// What a step needs, which is nothing of it.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Trimmed {
        name: Sensitive<IgnoredAny>,
    }
    assert_eq!(said::<Trimmed>(protecting(&["/name"])), [""; 0]);

    /// Of which nothing can be made up.
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
    let expected = "Typo version 1: /guests/*/name belongs to whom /guests/*/ID names, but T has no such member: correct the pointer to the owner's id";
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
    let rest =
        ["/point/0", "/point/1", "/person/name", "/kind/Named/name", "/phones/home", "/any/x/y", "/ignored/x", "/person/parents/*/name"];
    assert_eq!(said::<Known>(protecting(&[&["/email"], &rest[..]].concat())), [""; 0]);
    assert_eq!(said::<Known>(protecting(&[&["/mail"], &rest[..]].concat())), [""; 0], "by its other name");
    let found = said::<Known>(protecting(&["/person/parents/*/nmae"]));
    let in_the_clear =
        |place| format!("Typo version 1: {place} is a Sensitive in T, but not protected: it is stored in the clear; protect it");
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
            impl EventPayload for $name {
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
        changes.iter().any(|found| matches!(&found.change, ChangeKind::NoSuchMember { pointer, .. } if pointer == "/email")),
        "{changes:?}"
    );
}
