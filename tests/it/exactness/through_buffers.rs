//! Erasures in types that serde reads through a buffer.

use super::{object, problem, redacted, try_append};
use eventseal::error::EventFault;
use eventseal::{Error, NewEvent, PersistedEvent, Result, Schemas, Sensitive, event};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::world::*;

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
            let nested = || match list {
                true => Nested::List(vec![expected(&x), expected(&x)]),
                false => Nested::Object { x: expected(&x) },
            };
            let b_read = if b == (json!(null), false) { None } else { Some(expected(&b)) };
            let expected = Three { a: expected(&a), b: b_read, c: nested() };
            let inner: &[&str] = if list { &["/c/0", "/c/1"] } else { &["/c/x"] };
            let places = [(a.1, &["/a"][..]), (b.1, &["/b"]), (x.1, inner)];
            let erased: Vec<String> =
                places
                    .into_iter()
                    .filter(|(is_erased, _)| *is_erased)
                    .flat_map(|(_, places)| places)
                    .map(|place| (*place).to_owned())
                    .collect();
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
            let of_card = get!(Wrapper { inner: Internal::Card(it) } => it);
            check(&json!({"inner": internal}), "/inner", &erased, &expected, of_card)?;
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
        (
            &["/plain", "/text", "/none", "/note", "/flag", "/is"],
            paid(Sensitive::Redacted, Sensitive::Redacted, Sensitive::Redacted),
        ),
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
#[expect(clippy::too_many_lines, reason = "a list of types")]
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
    for (places, is_erased) in
        [(&["/contact"][..], false), (&["/contact", "/number"], true), (&["/contact", "/contact/text"], false)]
    {
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
        assert!(
            matches!(
                &error,
                Error::Event { fault: EventFault::Decode { problem, .. }, .. }
                    if problem.contains("a value or the stand-in")
            ),
            "{error:?}"
        );
    };
    refused(&redacted(r#"{"a":"erased","b":"x"}"#, &["/a"]));
    refused(&redacted(r#"{"a":null,"b":"x"}"#, &["/a"]));
    refused(&redacted(r#"{"a":"x","b":null}"#, &["/b"]));
    // A stand-in that can't be a value of the type is read as a redaction.
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
    for shown in [
        problem(&object("m", Members(1))),
        problem(&object("m", Members(f64::NAN))),
        problem(&object("m", Sensitive::Present(names))),
    ] {
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
    assert!(
        matches!(error, Error::Event { fault: EventFault::SensitiveInTheClear { .. }, .. })
            && !format!("{error} {error:?}").contains("ada"),
        "{error:?}"
    );
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
            matches!(
                &refused,
                Err(Error::Event { fault: EventFault::Decode { problem, .. }, .. })
                    if problem.contains("a Sensitive went through a buffer")
            ),
            "{refused:?}"
        );
    }
    let unclear = erased(r#"{"name":null,"other":"o"}"#).decode::<Kept<Option<String>>>();
    assert!(
        matches!(unclear, Err(Error::Event { fault: EventFault::Decode { .. }, .. })),
        "erased, and not a null that was written: {unclear:?}"
    );
    let inside = redacted(r#"{"a":[{"name":null,"other":"o"}]}"#, &["/a/0/name"])
        .decode::<BTreeMap<String, Vec<Kept<String>>>>()
        .unwrap();
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
