//! A `Sensitive` that the constants of the derives can't see is found when the schemas are built, and so is an owner
//! whose id is not where the type has it.

use super::{Customer, of, problems, protected};
use eventseal::schema::{Layout, NoId};
use eventseal::{Event, EventPart, Schemas, Sensitive};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Writes a value as a text.
mod as_text {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(value).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod v1 {
    use super::{Deserialize, EventPart, Sensitive, Serialize};

    #[derive(Clone, Serialize, Deserialize, EventPart)]
    pub(super) struct Contact {
        pub(super) email: Sensitive<String>,
    }
}

/// Its name is that of the type in it, so its constants leave that one out.
#[derive(Clone, Serialize, Deserialize, EventPart)]
struct Contact {
    before: v1::Contact,
}

/// A pointer by hand, which forgets the constants.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Pointer<T>(T);

impl<T: EventPart> EventPart for Pointer<T> {
    type Id = NoId;

    fn layout() -> Layout {
        Layout::same::<T>()
    }
}

#[test]
fn in_what_a_function_writes() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct Named {
        #[serde(with = "as_text")]
        contact: Contact,
    }
    #[derive(Serialize, Deserialize, EventPart)]
    struct Node {
        #[event(owner = aggregate)]
        name: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize, EventPart)]
    struct Tree {
        #[event(recursive)]
        nodes: Vec<Node>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct Recursive {
        #[serde(with = "as_text")]
        tree: Tree,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct ByHand {
        #[serde(with = "as_text")]
        contact: Pointer<v1::Contact>,
    }
    for found in
        [problems(Schemas::of::<Named>()), problems(Schemas::of::<Recursive>()), problems(Schemas::of::<ByHand>())]
    {
        assert!(found.len() == 1 && found[0].contains("that a function writes"), "{found:?}");
    }
}

#[test]
fn in_variants_without_a_tag_and_in_types_that_are_read_as_others() {
    #[derive(Serialize, Deserialize, EventPart)]
    enum How {
        Tagged {
            x: u8,
        },
        #[serde(untagged)]
        Bare(Contact),
    }
    #[derive(Serialize, Deserialize, EventPart)]
    #[serde(untagged)]
    enum Untagged {
        Bare(Contact),
        Number(u8),
    }
    #[derive(Clone, Serialize, Deserialize, EventPart)]
    #[serde(from = "u8")]
    struct Converted(Contact);
    impl From<u8> for Converted {
        fn from(_: u8) -> Self {
            Self(Contact { before: v1::Contact { email: Sensitive::Redacted } })
        }
    }
    macro_rules! found_in {
        ($($type:ty)*) => {$({
            #[derive(Serialize, Deserialize, Event)]
            #[event(type = "Met", version = 1, owner = aggregate)]
            struct Met {
                it: $type,
                name: Sensitive<String>,
            }
            let found = problems(Schemas::of::<Met>());
            assert!(found.len() == 1 && found[0].contains("holds Sensitive values"), "{found:?}");
        })*};
    }
    found_in! { How Untagged Converted }
}

#[test]
fn in_types_that_say_it_and_not_where() {
    #[derive(Serialize, Deserialize)]
    struct Odd(Sensitive<String>);
    impl EventPart for Odd {
        const PROTECTS: bool = true;
        const NEEDS_OWNER: bool = false;
        type Id = NoId;
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct Met {
        odd: Odd,
    }
    let found = problems(Schemas::of::<Met>());
    assert!(found.len() == 1 && found[0].contains("and not where"), "{found:?}");
}

/// Two types of one name are two types, and none of them holds itself.
#[test]
fn in_a_type_of_the_same_name() {
    #[derive(Serialize, Deserialize, EventPart)]
    struct Card {
        number: Sensitive<String>,
    }
    type First = Card;
    let owners = {
        #[derive(Serialize, Deserialize, EventPart)]
        struct Card {
            first: First,
        }
        #[derive(Serialize, Deserialize, Event)]
        #[event(type = "Met", version = 1, owner = aggregate)]
        struct Met {
            card: Card,
        }
        protected(&of::<Met>(), "Met", 1)
    };
    assert_eq!(owners.keys().collect::<Vec<_>>(), ["/card/first/number"]);
}

#[derive(Serialize, Deserialize)]
struct Foreign {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct ByHand {
    id: u64,
}

impl EventPart for ByHand {
    type Id = NoId;
}

#[derive(Clone, Serialize, Deserialize, EventPart)]
#[serde(from = "BTreeMap<String, u64>", into = "BTreeMap<String, u64>")]
struct Converted {
    id: u64,
}

impl From<BTreeMap<String, u64>> for Converted {
    fn from(written: BTreeMap<String, u64>) -> Self {
        Self { id: written["customer"] }
    }
}

impl From<Converted> for BTreeMap<String, u64> {
    fn from(converted: Converted) -> Self {
        Self::from([("customer".to_owned(), converted.id)])
    }
}

#[derive(Serialize, Deserialize, EventPart)]
struct Id {
    id: u64,
}

#[test]
fn owners_whose_ids_are_not_where_the_type_has_them() {
    #[derive(Serialize, Deserialize, EventPart)]
    struct Part {
        #[event(plain)]
        foreign: Foreign,
        by_hand: ByHand,
        converted: Converted,
        #[serde(with = "as_text")]
        function: Id,
        #[serde(with = "as_text")]
        direct: u64,
        #[event(owner = Customer(foreign.id))]
        a: Sensitive<String>,
        #[event(owner = Customer(by_hand.id))]
        b: Sensitive<String>,
        #[event(owner = Customer(converted.id))]
        c: Sensitive<String>,
        #[event(owner = Customer(function.id))]
        d: Sensitive<String>,
        #[event(owner = Customer(direct))]
        e: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    struct Met {
        note: Sensitive<String>,
        part: Part,
    }
    let found = problems(Schemas::of::<Met>());
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(
        found.iter().all(|problem| problem.contains("it can't be seen where serde writes that field")),
        "{found:?}"
    );
    assert!(found[0].contains("the owner of \"/part/a\" is named by foreign.id"), "{found:?}");
}
