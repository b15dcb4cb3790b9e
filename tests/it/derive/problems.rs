//! What takes several types to see is a problem of the schemas.

use super::{Courier, Customer, Guest, problems, protected};
use eventseal::{Event, EventPart, Schemas, Sensitive, event, subject};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "Met", version = 1, owner = aggregate)]
#[serde(tag = "t")]
enum InAndOut {
    In { name: Sensitive<String> },
    Out { name: String },
}

#[test]
fn variants_that_share_a_place_and_disagree() {
    assert_eq!(
        problems(Schemas::of::<InAndOut>()),
        ["Met version 1: the variants In and Out of it::derive::problems::InAndOut differ in owner, stand-in or \
          protection at \"/name\", and a pointer can't tell variants apart: make it Sensitive in both, for one owner \
          and with one stand-in, or give them members of different names"]
    );
}

#[test]
fn variants_that_disagree_in_other_ways() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    #[serde(tag = "t", content = "c")]
    enum Owners {
        A {
            #[event(owner = aggregate)]
            x: Sensitive<String>,
        },
        B {
            #[event(owner = aggregate(Customer))]
            x: Sensitive<String>,
        },
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t", content = "c")]
    enum Around {
        A { x: Sensitive<String> },
        B(Sensitive<String>),
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Deeper {
        A { x: Inner },
        B { x: u32 },
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct Flattened {
        #[serde(flatten)]
        inner: InAndOut,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Rest {
        A {
            x: Sensitive<String>,
        },
        B {
            #[serde(flatten)]
            rest: HashMap<String, u8>,
        },
    }
    let all = [
        problems(Schemas::of::<Owners>()),
        problems(Schemas::of::<Around>()),
        problems(Schemas::of::<Deeper>()),
        problems(Schemas::of::<Flattened>()),
        problems(Schemas::of::<Rest>()),
    ];
    for found in all {
        assert!(found.len() == 1 && found[0].contains("differ in owner, stand-in or protection at"), "{found:?}");
    }
}

#[derive(Serialize, Deserialize, EventPart)]
struct Inner {
    s: Sensitive<String>,
}

#[test]
fn texts_where_objects_belong() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Paid", version = 1, owner = aggregate)]
    struct Paid {
        how: How,
    }
    #[derive(Serialize, Deserialize, EventPart)]
    enum How {
        Cash,
        Card { number: Sensitive<String> },
    }
    let found = problems(Schemas::of::<Paid>());
    assert!(
        found.len() == 1 && found[0].contains("the variant Cash of") && found[0].contains("`Cash {}`"),
        "{found:?}"
    );
}

#[test]
fn fields_that_share_a_place() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    struct Siblings {
        s: String,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    struct Twice {
        #[serde(flatten)]
        one: Inner,
        #[serde(flatten)]
        two: Inner,
    }
    let (siblings, twice) = (problems(Schemas::of::<Siblings>()), problems(Schemas::of::<Twice>()));
    assert!(siblings.len() == 1 && siblings[0].contains("overlap"), "{siblings:?}");
    assert!(twice.len() == 1 && twice[0].contains("overlap"), "{twice:?}");
}

#[test]
fn types_that_hold_themselves() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Tree", version = 1, owner = aggregate)]
    struct Tree {
        name: Sensitive<String>,
        children: Vec<Tree>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Plain", version = 1)]
    struct Plain {
        name: String,
        children: Vec<Plain>,
        other: Option<Box<Mutual>>,
    }
    #[derive(Serialize, Deserialize, EventPart)]
    struct Mutual {
        #[event(recursive)]
        back: Vec<Plain>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Tree", version = 1, owner = aggregate)]
    struct Mapped {
        name: Sensitive<String>,
        children: HashMap<String, Mapped>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Tree", version = 1, owner = aggregate)]
    struct Hidden {
        name: Sensitive<String>,
        // The name of another type: it is taken for its own, and looked at all the same.
        others: HashMap<String, elsewhere::Hidden>,
    }
    mod elsewhere {
        use super::{Deserialize, EventPart, Sensitive, Serialize};
        #[derive(Serialize, Deserialize, EventPart)]
        pub(super) struct Hidden {
            name: Sensitive<String>,
        }
    }
    let found = problems(Schemas::of::<Mapped>());
    assert!(found.iter().any(|found| found.contains("holds Sensitive values and itself")), "{found:?}");
    assert_eq!(problems(Schemas::of::<Hidden>()), [""; 0]);
    assert!(protected(&Schemas::of::<Hidden>().build().unwrap(), "Tree", 1).contains_key("/others/{member}/name"));
    let found = problems(Schemas::of::<Tree>());
    assert!(found.len() == 1 && found[0].contains("holds Sensitive values and itself"), "{found:?}");
    assert_eq!(problems(Schemas::of::<Plain>()), [""; 0]);
}

#[test]
fn maps_where_they_can_not_be() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    struct Flattened {
        x: u8,
        #[serde(flatten)]
        all: HashMap<String, Sensitive<String>>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    struct Root(HashMap<String, Sensitive<String>>);
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Tagged {
        All(HashMap<String, Sensitive<String>>),
    }
    for found in
        [problems(Schemas::of::<Flattened>()), problems(Schemas::of::<Root>()), problems(Schemas::of::<Tagged>())]
    {
        assert!(found.len() == 1 && found[0].contains("beside other members"), "{found:?}");
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1)]
    struct NoMap {
        #[event(owner = key(Guest))]
        name: Sensitive<String>,
    }
    let found = problems(Schemas::of::<NoMap>());
    assert!(found[0].contains("is in no map"), "{found:?}");
    let _ = Guest;
}

#[test]
fn variants_that_are_lists_and_objects() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Lists {
        A { x: Vec<Sensitive<String>> },
        B { x: (String, String) },
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Maps {
        A { x: HashMap<String, Sensitive<String>> },
        B { x: Named },
    }
    #[derive(Serialize, Deserialize, EventPart)]
    struct Named {
        name: String,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Met", version = 1, owner = aggregate)]
    #[serde(tag = "t")]
    enum Both {
        A { x: Vec<Inner> },
        B { x: Inner },
    }
    for found in [problems(Schemas::of::<Lists>()), problems(Schemas::of::<Maps>()), problems(Schemas::of::<Both>())] {
        assert!(found.iter().any(|found| found.contains("differ in owner, stand-in or protection at")), "{found:?}");
    }
}

#[test]
fn lists_as_payloads() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Listed", version = 1, owner = aggregate)]
    struct List(u8, Sensitive<String>);
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Listed", version = 1, owner = aggregate)]
    struct Elements(Vec<Sensitive<String>>);
    for found in [problems(Schemas::of::<List>()), problems(Schemas::of::<Elements>())] {
        assert!(found[0].contains("is written as a list"), "{found:?}");
    }
}

#[test]
fn declarations_that_disagree() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Placed", version = 1, owner = Customer(customer_id))]
    struct Placed {
        customer_id: u64,
        #[event(redact_as = "gone", pad_to = 64)]
        email: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Placed", version = 1)]
    struct Other {}
    let hand = || event("Placed").version(1);
    let customer = || subject("Customer", "/customer_id");
    let of = |schema| problems(Schemas::of::<Placed>().and([schema]));
    for (schema, part) in [
        (hand(), "\"/email\" is Sensitive in the type, and not protected in event(…)"),
        (hand().protect(&["/email", "/name"], customer()), "\"/email\" has two stand-ins"),
        (
            hand().protect(&["/email", "/name"], customer()).redact_as("/email", "gone").pad_to("/email", 64),
            "\"/name\" is protected in event(…), and not Sensitive in the type",
        ),
        (hand().protect(&["/email"], subject("Courier", "/customer_id")), "\"/email\" has two owners"),
        (hand().protect(&["/email"], customer()).redact_as("/email", "gone"), "\"/email\" has two paddings"),
        (hand().protect_whole(customer()), "\"/email\" is Sensitive in the type, and not protected in event(…)"),
    ] {
        let found = of(schema);
        assert!(found.len() == 1 && found[0].contains(part), "{found:?}: {part}");
    }
    let two = problems(Schemas::of::<Placed>().and_of::<Other>());
    assert!(two.iter().any(|problem| problem.contains("both ") && problem.contains("declare this version")), "{two:?}");
    let twice = problems(Schemas::of::<Placed>().and([event("Hand").version(1), event("Hand").version(1)]));
    assert!(twice.iter().any(|problem| problem.contains("it is declared twice")), "{twice:?}");
    let _ = Courier;
}
