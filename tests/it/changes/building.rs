//! Declarative steps that building the schemas refuses.

use super::*;

fn problems(events: impl IntoIterator<Item = EventSchema>) -> Vec<String> {
    match Schemas::new(events) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_was_protected_must_stay_protected() {
    let v1 = || event("E").version(1).protect(&["/email", "/lines/*/note"], Owner::Aggregate);
    let v2 = |protected: &[&str], changes| {
        problems([v1().version(2).protect(protected, Owner::Aggregate).change(1, changes)])
    };
    let kept = ["/email", "/lines/*/note"];
    let none: [&str; 0] = [];
    assert_eq!(v2(&kept, Changes::new()), none);
    assert_eq!(v2(&["/contact", "/lines/*/note"], moved("/email", "/contact/email")), none, "inside what is protected");
    assert_eq!(v2(&["/email", "/items/*/note"], moved("/lines", "/items")), none);
    assert_eq!(v2(&["/email", "/items"], moved("/lines", "/items")), none);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines/*/note")), none);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines")), none);
    assert_eq!(v2(&["/lines/*/note"], moved("/email", "/x").remove("/x")), none);
    let leaves = |from: &str, to: &str| {
        format!(
            "E version 1: what is protected at {from} gets to {to} of E version 2, which does not protect it there: \
             protect it, or remove it in the step"
        )
    };
    assert_eq!(v2(&["/lines/*/note"], Changes::new()), [leaves("/email", "/email")]);
    assert_eq!(v2(&kept, moved("/email", "/mail")), [leaves("/email", "/mail")]);
    assert_eq!(v2(&kept, Changes::new().copy_value("/email", "/mail")), [leaves("/email", "/mail")]);
    assert_eq!(
        v2(&["/mail", "/lines/*/note"], Changes::new().copy_value("/email", "/mail")),
        [leaves("/email", "/email")]
    );
    assert_eq!(v2(&kept, Changes::new().copy_value("/email", "/lines/*/mail")), [leaves("/email", "/lines/*/mail")]);
    assert_eq!(v2(&kept, moved("/lines", "/items")), [leaves("/lines/*/note", "/items/*/note")]);
    assert_eq!(v2(&kept, Changes::new().copy_value("/lines/0/note", "/first")), [leaves("/lines/*/note", "/first")]);
    assert_eq!(
        v2(&kept, moved("/email/domain", "/domain")),
        [leaves("/email", "/domain")],
        "a part is as sensitive as the whole"
    );
    assert_eq!(v2(&["/email", "/lines/0/note"], Changes::new()), [leaves("/lines/*/note", "/lines/*/note")]);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines/0/note")), [leaves("/lines/*/note", "/lines/*/note")]);
    // A name that looks like an index may be that of an object's member, which no `*` means.
    let indexed = |protected: &str| {
        problems([event("E")
            .version(1)
            .protect(&["/l/0/a"], Owner::Aggregate)
            .version(2)
            .protect(&[protected], Owner::Aggregate)
            .change(1, Changes::new())])
    };
    assert_eq!(indexed("/l/0/a"), none);
    assert_eq!(indexed("/l/*/a"), [leaves("/l/0/a", "/l/0/a")]);
    assert_eq!(v2(&kept, moved("/email", "/a/~2").remove("/b")), [leaves("/email", "/a/~2")]);
    let unprotected =
        problems([v1().version(2).unprotected("no longer holds any").change(1, Changes::new().remove("/lines"))]);
    assert_eq!(unprotected, [leaves("/email", "/email")]);
    let whole = || event("E").version(1).protect_whole(Owner::Aggregate);
    let parts = whole().version(2).protect(&["/email"], Owner::Aggregate).change(1, Changes::new());
    assert_eq!(problems([parts]), [leaves("the root", "the root")]);
    assert_eq!(
        problems([whole().version(2).protect_same_as(1).change(1, moved("/a", "/b").map_value("/c", |c: u8| c))]),
        none
    );

    // Across a rename, too.
    let renamed = |to: EventSchema| problems([v1().change(1, Changes::new().rename_type("F", 1)), to]);
    assert_eq!(renamed(event("F").version(1).protect(&kept, Owner::Aggregate)), none);
    let lost = leaves("/lines/*/note", "/lines/*/note").replace("of E version 2", "of F version 1");
    assert_eq!(renamed(event("F").version(1).protect(&["/email"], Owner::Aggregate)), [lost]);
}

#[test]
fn whose_a_value_is_stays_said() {
    let v1 = || event("E").version(1).protect(&["/email"], customer());
    let v2 = |id: &str, changes| {
        problems([v1().version(2).protect(&["/email"], subject("Customer", id)).change(1, changes)])
    };
    let new = Changes::new;
    let lost = "E version 1: the step takes /customer away, which names the owner of /email in E version 2: keep it, \
        or point the subject at where it goes";
    assert_eq!(v2("/customer", new().remove("/customer")), [lost]);
    assert_eq!(v2("/customer", moved("/customer", "/buyer/id")), [lost]);
    assert_eq!(v2("/customer", new().copy_value("/customer", "/x").remove("/customer")), [lost]);
    assert_eq!(v2("/buyer/id", new().remove("/buyer")), [lost.replace("/customer", "/buyer/id")]);
    for (id, changes) in [
        ("/buyer/id", moved("/customer", "/buyer/id")),
        ("/customer", moved("/customer", "/t").move_value("/t", "/customer")),
        ("/customer", new().remove("/customer").copy_value("/buyer", "/customer")),
        ("/customer", new().remove("/customer").set_default("/customer", "nobody")),
        ("/customer", new().remove("/customer/name")),
        ("/customer", new().map_value("/customer", |id: u64| format!("c-{id}"))),
        ("/elsewhere", new()),
    ] {
        let what = format!("{id} {changes:?}");
        assert!(v2(id, changes).is_empty(), "{what}");
    }
    let inherited = v1().version(2).protect(&["/email"], Owner::Aggregate).change(1, new().remove("/customer"));
    assert!(problems([inherited]).is_empty(), "nobody asks for it any more");
    let elements = event("E").version(1).protect(&["/l/*/a"], subject("G", "/l/*/id"));
    let elements = elements.version(2).protect_same_as(1).change(1, new().remove("/l/*/id"));
    assert!(problems([elements])[0].contains("takes /l/*/id away"));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let new = Changes::new;
    let of = |changes| {
        let found = problems([event("E")
            .version(1)
            .protect(&["/a", "/l/*/a"], Owner::Aggregate)
            .version(2)
            .protect_same_as(1)
            .change(1, changes)]);
        found
            .iter()
            .map(|problem| problem.strip_prefix("E version 1: ").unwrap().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    for (changes, problem) in [
        (moved("a", "/b"), r#"pointer "a" must start with '/'"#),
        (moved("/b", ""), r#"pointer "" is the whole payload"#),
        (new().remove("/~4"), r#"pointer "/~4" has a '~'"#),
        (new().set_default("/l/*", 1), r#"pointer "/l/*" ends in '*'"#),
        (new().remove("/l/*"), r#"pointer "/l/*" ends in '*'"#),
        (moved("/l/*", "/m/*"), r#"pointer "/l/*" ends in '*'"#),
        (new().copy_value("/b", "/l/*"), r#"pointer "/l/*" ends in '*'"#),
        (moved("/l/*/b", "/m/*/b"), r#""/l/*/b" and "/m/*/b" lie in different arrays"#),
        (moved("/l/*/b", "/b"), "lie in different arrays"),
        (moved("/b", "/l/*/b"), "lie in different arrays"),
        (new().copy_value("/l/*/b", "/b"), "lie in different arrays"),
        (moved("/b", "/b/c"), "nothing can be moved or copied into itself"),
        (moved("/b/c", "/b"), "nothing can be moved or copied into itself"),
        (new().copy_value("/b", "/b"), "nothing can be moved or copied into itself"),
        (moved("/b", "/$seal"), "is the header's own place"),
        (moved("/$seal", "/b"), "is the header's own place"),
        (new().copy_value("/b", "/$seal"), "is the header's own place"),
        (new().copy_value("/$seal", "/b"), "is the header's own place"),
        (new().set_default("/$seal", 1), "is the header's own place"),
        (new().remove("/$seal"), "is the header's own place"),
        (new().map_value("/$seal/x", |x: u8| x), "is the header's own place"),
        (moved("/b", "/a/b"), r#""/b" would get to "/a/b", into "/a", which is protected as one value"#),
        (new().copy_value("/b", "/a/b"), r#"into "/a", which is protected as one value"#),
        (
            new().map_value("/l", |l: Value| l),
            r#"the function for "/l" would see what is protected at "/l/*/a" inside of it"#,
        ),
        (new().map_value("/l/*", |l: Value| l), r#"the function for "/l/*" would see"#),
        (
            new().rename_type("F", 1).rename_type("G", 1),
            "the step renames the type twice\nits step leads to F version 1, which is not declared",
        ),
        (new().rename_type("F", 1), "its step leads to F version 1, which is not declared"),
    ] {
        let found = of(changes);
        assert!(found.contains(problem), "{problem} is not in {found}");
        assert_eq!(found.lines().count(), problem.lines().count(), "{found}");
    }
    assert_eq!(
        of(new().map_value("/a", |a: String| a).map_value("/l/*/a", |a: String| a).map_value("/l/0/b", |a: String| a)),
        ""
    );
    let back = problems([event("E").version(1).change(1, new().rename_type("E", 1))]);
    assert_eq!(back, ["E version 1: its steps lead back to itself"]);
}
