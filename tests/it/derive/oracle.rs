//! The places that a derive declares are those at which serde writes: values whose `Sensitive`s are known are written,
//! and looked for. None may be missed, and none invented.

use super::{Customer, of};
use eventseal::{Event, EventPart, NewEvent, Sensitive};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Each `Sensitive` here holds a text with this mark, and nothing else does.
const MARK: char = '§';

fn s(text: &str) -> Sensitive<String> {
    format!("{MARK}{text}").into()
}

fn marked(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let step = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::String(text) if text.starts_with(MARK) => drop(found.insert(at.to_owned())),
        Value::Array(all) => all.iter().enumerate().for_each(|(i, inner)| marked(inner, &step(&i.to_string()), found)),
        Value::Object(all) => all.iter().for_each(|(name, inner)| {
            assert!(!name.starts_with(MARK), "no name is sensitive here");
            marked(inner, &step(name), found);
        }),
        _ => {}
    }
}

/// The places in a value that a pattern names.
fn named(value: &Value, pattern: &str) -> Vec<String> {
    let mut places = vec![(String::new(), value)];
    for token in pattern.split('/').skip(1) {
        let unescaped = token.replace("~3", "{").replace("~1", "/").replace("~0", "~");
        let name = if token == "~2" { "*".to_owned() } else { unescaped };
        places = places
            .into_iter()
            .flat_map(|(at, value)| match value {
                Value::Array(all) if token == "*" => {
                    all.iter().enumerate().map(|(i, inner)| (format!("{at}/{i}"), inner)).collect()
                }
                Value::Array(all) => match name.parse::<usize>().ok().and_then(|index| all.get(index)) {
                    Some(inner) => vec![(format!("{at}/{token}"), inner)],
                    None => Vec::new(),
                },
                Value::Object(all) if token.starts_with('{') => {
                    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                    all.iter().map(|(name, inner)| (format!("{at}/{}", escaped(name)), inner)).collect()
                }
                Value::Object(all) if token != "*" => {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    all.get(&name).map(|inner| (format!("{at}/{escaped}"), inner)).into_iter().collect()
                }
                _ => Vec::new(),
            })
            .collect();
    }
    places.into_iter().filter(|(_, value)| !value.is_null()).map(|(at, _)| at).collect()
}

/// Compares what is declared for `E` with what is written. `aliases`: pointers that are read, and never written.
fn check<E: Event>(values: Vec<E>, aliases: &[&str]) {
    let schemas = of::<E>();
    let versions = schemas.versions();
    let patterns: Vec<String> = versions[0].protected.iter().map(|place| place.pointer.clone()).collect();
    let mut used: BTreeSet<&str> = aliases.iter().copied().collect();
    for alias in aliases {
        assert!(patterns.iter().any(|pattern| pattern == alias), "{}: {alias} is read, and not protected", E::TYPE);
    }
    for value in &values {
        let written: Value = serde_json::from_slice(NewEvent::of(value).unwrap().payload()).unwrap();
        let mut marks = BTreeSet::new();
        marked(&written, "", &mut marks);
        let mut covered = BTreeSet::new();
        for pattern in &patterns {
            let places = named(&written, pattern);
            if !places.is_empty() {
                used.insert(pattern);
            }
            covered.extend(places);
        }
        assert_eq!(covered, marks, "{}: {written} with {patterns:?}", E::TYPE);
    }
    let unused: Vec<_> = patterns.iter().filter(|pattern| !used.contains(pattern.as_str())).collect();
    assert!(unused.is_empty(), "{}: {unused:?} was never written", E::TYPE);
}

#[derive(Serialize, Deserialize, EventPart)]
struct Contact {
    email: Sensitive<String>,
    language: Option<String>,
}

fn contact() -> Contact {
    Contact { email: s("email"), language: Some("en".into()) }
}

#[derive(Serialize, Deserialize, EventPart)]
struct Two(u8, Sensitive<String>);

#[derive(Serialize, Deserialize, EventPart)]
#[serde(transparent)]
struct Wrapped<T> {
    inner: T,
}

#[derive(Serialize, Deserialize, EventPart)]
struct Generic<T, U> {
    first: T,
    second: Vec<U>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "Structs", version = 1, owner = aggregate(Customer))]
#[serde(rename_all = "camelCase")]
struct Structs {
    first_name: Sensitive<String>,
    #[serde(rename = "a/b~c")]
    odd: Sensitive<String>,
    #[serde(rename = "*")]
    star: Sensitive<String>,
    r#type: Sensitive<String>,
    #[serde(rename = "{brace}")]
    brace: Sensitive<String>,
    contact: Contact,
    maybe: Option<Contact>,
    never: Option<Contact>,
    list: Vec<Contact>,
    deque: VecDeque<Vec<Contact>>,
    array: [Sensitive<String>; 2],
    pair: (Sensitive<String>, u8, Contact),
    two: Two,
    boxed: Box<Sensitive<String>>,
    shared: Arc<Contact>,
    counted: Rc<[Contact]>,
    cow: Cow<'static, str>,
    wrapped: Wrapped<Contact>,
    wrapped_twice: Wrapped<Wrapped<Sensitive<String>>>,
    generic: Generic<Contact, (u8, Sensitive<String>)>,
    by_name: BTreeMap<String, Sensitive<String>>,
    by_number: HashMap<u8, Vec<Contact>>,
    nested: BTreeMap<String, BTreeMap<String, (u8, Contact)>>,
    map: BTreeMap<String, u8>,
    value: Value,
    #[serde(skip)]
    #[expect(dead_code, reason = "it is only there to be skipped")]
    skipped: Option<Sensitive<String>>,
    #[event(plain)]
    took: Foreign,
    unit: (),
}

#[derive(Default, Serialize, Deserialize)]
struct Foreign {
    x: u8,
}

#[test]
fn structs_containers_and_generics() {
    let value = |maybe: bool| Structs {
        first_name: s("1"),
        odd: s("2"),
        star: s("3"),
        r#type: s("t"),
        brace: s("b"),
        contact: contact(),
        maybe: maybe.then(contact),
        never: Some(contact()),
        list: vec![contact(), contact()],
        deque: VecDeque::from([vec![contact()], vec![], vec![contact(), contact()]]),
        array: [s("4"), s("5")],
        pair: (s("6"), 7, contact()),
        two: Two(1, s("8")),
        boxed: Box::new(s("9")),
        shared: Arc::new(contact()),
        counted: [contact()].into(),
        cow: "x".into(),
        wrapped: Wrapped { inner: contact() },
        wrapped_twice: Wrapped { inner: Wrapped { inner: s("10") } },
        generic: Generic { first: contact(), second: vec![(1, s("11"))] },
        by_name: BTreeMap::from([("a/b".into(), s("12")), ("{x}".into(), s("13"))]),
        by_number: HashMap::from([(7, vec![contact()]), (8, vec![])]),
        nested: BTreeMap::from([("o".into(), BTreeMap::from([("i".into(), (1, contact()))]))]),
        map: BTreeMap::from([("k".into(), 1)]),
        value: serde_json::json!({ "email": "plain" }),
        skipped: Some(s("13")),
        took: Foreign::default(),
        unit: (),
    };
    check(vec![value(true), value(false)], &[]);
}

#[test]
fn names() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Names", version = 1, owner = aggregate)]
    #[serde(rename_all(serialize = "SCREAMING-KEBAB-CASE", deserialize = "SCREAMING-KEBAB-CASE"))]
    struct Names {
        home_address: Sensitive<String>,
        #[serde(alias = "mail", alias = "e-mail")]
        email_address: Sensitive<String>,
        #[serde(rename(serialize = "out", deserialize = "in"), alias = "out")]
        two_ways: Sensitive<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absent: Option<Sensitive<String>>,
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "it is not written")]
        only_read: Option<Sensitive<String>>,
    }
    check(
        vec![
            Names {
                home_address: s("1"),
                email_address: s("2"),
                two_ways: s("3"),
                absent: Some(s("4")),
                only_read: None,
            },
            Names { home_address: s("1"), email_address: s("2"), two_ways: s("3"), absent: None, only_read: None },
        ],
        &["/mail", "/e-mail", "/in", "/ONLY-READ"],
    );

    macro_rules! cases {
        ($($name:ident $case:literal,)*) => {$({
            #[derive(Serialize, Deserialize, Event)]
            #[event(type = "Cased", version = 1, owner = aggregate)]
            #[serde(rename_all = $case, rename_all_fields = $case)]
            enum $name {
                FirstHTTPVariant { some_field_2x: Sensitive<String>, _odd: Sensitive<String> },
                XRay { at: Sensitive<String> },
            }
            let first = $name::FirstHTTPVariant { some_field_2x: s("1"), _odd: s("2") };
            check(vec![first, $name::XRay { at: s("3") }], &[]);

            #[derive(Serialize, Deserialize, Event)]
            #[event(type = "Cased", version = 1, owner = aggregate)]
            #[serde(rename_all = $case)]
            struct Fields { some_field_2x: Sensitive<String>, x: Sensitive<String> }
            check(vec![Fields { some_field_2x: s("1"), x: s("2") }], &[]);
        })*};
    }
    cases! {
        Lower "lowercase", Upper "UPPERCASE", Pascal "PascalCase", Camel "camelCase", Snake "snake_case",
        Screaming "SCREAMING_SNAKE_CASE", Kebab "kebab-case", ScreamingKebab "SCREAMING-KEBAB-CASE",
    }
}

macro_rules! payment {
    ($name:ident, $($attribute:meta)?) => {
        #[derive(Serialize, Deserialize, Event)]
        #[event(type = "Payment", version = 1, owner = aggregate)]
        $(#[$attribute])?
        enum $name {
            Card { number: Sensitive<String>, #[serde(rename = "until")] expiry: String },
            #[serde(rename = "bank", alias = "Bank")]
            Transfer(Account),
            Parcel { to: Contact, to_many: Vec<Contact> },
            Gift {},
        }
        impl $name {
            fn all() -> Vec<Self> {
                vec![
                    Self::Card { number: s("1"), expiry: "2030".into() },
                    Self::Transfer(Account { iban: s("2"), bank: "x".into() }),
                    Self::Parcel { to: contact(), to_many: vec![contact()] },
                    Self::Gift {},
                ]
            }
        }
    };
}

#[derive(Serialize, Deserialize, EventPart)]
struct Account2 {
    bic: Sensitive<String>,
}

#[derive(Serialize, Deserialize, EventPart)]
struct Account {
    iban: Sensitive<String>,
    bank: String,
}

payment!(External,);
payment!(Internal, serde(tag = "how"));
payment!(Adjacent, serde(tag = "how", content = "what"));

#[test]
fn enums() {
    check(External::all(), &["/Bank/iban"]);
    check(Internal::all(), &[]);
    check(Adjacent::all(), &[]);

    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Holder", version = 1)]
    struct Holder {
        external: External,
        internals: Vec<Internal>,
        adjacent: Option<Adjacent>,
    }
    let values = External::all().into_iter().zip(Adjacent::all());
    let values =
        values.map(|(external, adjacent)| Holder { external, internals: Internal::all(), adjacent: Some(adjacent) });
    check(values.collect(), &["/external/Bank/iban"]);

    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Tuples", version = 1, owner = aggregate)]
    enum Tuples {
        One(Sensitive<String>),
        Many(u8, Sensitive<String>, #[serde(skip)] u8, Contact),
        Nested(Adjacent),
    }
    let nested = Adjacent::all().into_iter().map(Tuples::Nested);
    check([Tuples::One(s("1")), Tuples::Many(1, s("2"), 3, contact())].into_iter().chain(nested).collect(), &[]);
}

#[test]
fn flattened() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Flat", version = 1, owner = Customer(customer_id))]
    struct Flat {
        customer_id: u64,
        #[serde(flatten)]
        contact: Contact,
        #[serde(flatten)]
        how: Internal,
        #[serde(flatten)]
        other: Option<Wrapped<Account2>>,
        #[serde(flatten)]
        rest: HashMap<String, Value>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "FlatExternal", version = 1, owner = aggregate)]
    struct FlatExternal {
        #[serde(flatten)]
        how: Units,
        #[serde(flatten)]
        boxed: Box<Adjacent>,
    }
    #[derive(Serialize, Deserialize, EventPart)]
    enum Units {
        Card { number: Sensitive<String> },
        Transfer(Account),
        Cash,
    }
    let values = Internal::all().into_iter().map(|how| Flat {
        customer_id: 1,
        contact: contact(),
        other: (!matches!(how, Internal::Transfer(_))).then(|| Wrapped { inner: Account2 { bic: s("a") } }),
        how,
        rest: HashMap::from([("free".into(), Value::Null)]),
    });
    check(values.collect(), &[]);
    let units = || {
        [
            Units::Card { number: s("1") },
            Units::Transfer(Account { iban: s("2"), bank: "x".into() }),
            Units::Cash,
            Units::Cash,
        ]
    };
    let values = units().into_iter().zip(Adjacent::all());
    check(values.map(|(how, boxed)| FlatExternal { how, boxed: Box::new(boxed) }).collect(), &[]);

    // An enum without a tag within a tagged one: its variants are members.
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Within", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Within {
        Paid(Units),
    }
    check(units().into_iter().map(Within::Paid).collect(), &[]);
}

#[test]
fn other_types() {
    #[derive(Clone, Serialize, Deserialize, EventPart)]
    struct Written {
        secret: Sensitive<String>,
    }
    #[derive(Clone, Serialize, Deserialize, EventPart)]
    #[serde(from = "Written", into = "Written")]
    struct Kept(Sensitive<String>);
    impl From<Written> for Kept {
        fn from(written: Written) -> Self {
            Self(written.secret)
        }
    }
    impl From<Kept> for Written {
        fn from(kept: Kept) -> Self {
            Self { secret: kept.0 }
        }
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Others", version = 1, owner = aggregate)]
    struct Others {
        kept: Kept,
        list: Vec<Kept>,
    }
    check(vec![Others { kept: Kept(s("1")), list: vec![Kept(s("2"))] }], &[]);
}

#[test]
fn whole_payloads() {
    #[derive(Serialize, Deserialize, EventPart)]
    struct Scan {
        text: String,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Scanned", version = 1, owner = aggregate(Customer))]
    #[serde(transparent)]
    struct Scanned(Sensitive<String>);
    check(vec![Scanned(s("all"))], &[]);
    assert_eq!(super::protected(&of::<Scanned>(), "Scanned", 1).keys().collect::<Vec<_>>(), [""]);

    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Newtype", version = 1, owner = aggregate)]
    struct Newtype(Contact);
    check(vec![Newtype(contact())], &[]);
    const { assert!(!Scan::PROTECTS) };
}
