//! `certificate`: as text, as JSON, and as a page that says what the JSON says.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

on_both! {
    a_certificate_is_issued_as_text_json_and_page,
    a_certificate_names_other_spellings_that_are_live,
    a_copy_proves_an_erasure,
    a_list_has_the_certificates_of_all,
    what_is_not_erased_has_an_exit_code_of_its_own,
    hostile_texts_stay_texts,
    the_horizon_is_what_was_said_about_copies,
    a_page_is_written_once_and_for_its_owner_alone,
}

/// The file of `shred --from` leads to the certificates. The exit code is that of the worst.
async fn a_list_has_the_certificates_of_all(world: World) {
    let world = world.with_keys(0..4).await;
    let file = |name: &str, ids: &[&str]| {
        let path = world.folder.path().join(name);
        let line = |id: &&str| format!("{{\"kind\":\"Customer\",\"id\":\"{id}\",\"reason\":\"request\"}}\n");
        std::fs::write(&path, ids.iter().map(line).collect::<String>()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (erased, some) = (file("erased", &["cust_2", "cust_0"]), file("some", &["cust_0", "cust_1", "cust_2"]));
    let unknown = file("unknown", &["cust_2", "Cust_0"]);
    world.json(&["shred", "--from", &erased, "--yes"]);
    let copy = world.folder.path().join("log").to_str().unwrap().to_owned();
    world.run(&["certificate", "--from", &erased, "--shred-log", &copy]).ended(5);
    world.json(&["shred-log", "export", "--append", &copy]);

    let all = world.json(&["certificate", "--from", &erased, "--shred-log", &copy]);
    let certificates = all["certificates"].as_array().unwrap();
    for (certificate, id) in certificates.iter().zip(["cust_2", "cust_0"]) {
        assert_eq!((&certificate["scope"]["id"], &certificate["proved"]), (&id.into(), &true.into()), "{certificate}");
        let mut alone = world.json(&["certificate", "Customer", id, "--shred-log", &copy]);
        alone["issued_at"] = certificate["issued_at"].clone();
        assert_eq!(*certificate, alone);
    }
    assert_eq!((certificates.len(), all["failed"].as_array().unwrap().len()), (2, 0));

    let mixed = world.run(&["certificate", "--from", &some]).ended(6);
    assert!(mixed.out.contains("Customer cust_1: NOT ERASED") && mixed.out.contains("2 erased"), "{mixed:?}");
    let misspelled = world.run(&["certificate", "--from", &unknown]).ended(6);
    assert!(misspelled.out.contains("NO CERTIFICATE of Customer Cust_0: "), "{misspelled:?}");
    let page = ["certificate", "--from", &erased, "--html", "page.html"];
    world.run(&page).ended(2);
    world.run(&["certificate"]).ended(2);
    let broken = world.run(&["certificate", "--from", &file("broken", &["\\"])]).ended(2);
    assert!(broken.err.contains("line 1") && broken.err.contains("nothing was looked at"), "{broken:?}");
}

const OF: [&str; 3] = ["certificate", "Customer", "cust_1"];
const COPIES: [&str; 2] = ["--retention", "backups=35d,archives=none,replicas=1h,kms=30d"];

fn new_file(world: &World) -> PathBuf {
    world.folder.path().join(format!("{}.html", uuid::Uuid::now_v7().simple()))
}

/// The JSON and the page of the same certificate.
#[track_caller]
fn issued(world: &World, arguments: &[&str], code: i32) -> (Value, String) {
    let path = new_file(world);
    let output = world.run(&[arguments, &["--json", "--html", path.to_str().unwrap()]].concat()).ended(code);
    let page = std::fs::read_to_string(path).unwrap();
    says_the_same(&output.json(), &page);
    (output.json(), page)
}

/// Asserts that the page shows every value of the document once, and shows no other values.
#[track_caller]
fn says_the_same(document: &Value, page: &str) {
    let mut values = BTreeMap::new();
    leaves("", document, &mut values);
    let mut shown = BTreeMap::new();
    for element in page.split("data-json=\"").skip(1) {
        let (place, rest) = element.split_once("\">").unwrap();
        let text = text_of(rest.split_once("</span>").unwrap().0);
        assert!(shown.insert(place.to_owned(), text).is_none(), "{place} is there twice");
    }
    assert_eq!(values.keys().collect::<Vec<_>>(), shown.keys().collect::<Vec<_>>(), "the values of page and JSON");
    assert!(values.len() > 30, "{values:?}");
    for (place, value) in values {
        let shown = &shown[&place];
        let same = match &value {
            Value::Null => shown == "none",
            Value::Bool(value) => shown == if *value { "yes" } else { "no" },
            Value::Number(number) => shown.replace(',', "") == number.to_string(),
            Value::String(text) => {
                let visible = text.chars().map(|c| if forges(c) { c.escape_default().to_string() } else { c.into() });
                let in_utc = shown.replacen(' ', "T", 1).replace(" UTC", "Z");
                *shown == visible.collect::<String>()
                    || in_utc == *text
                    || (text.len() == 64 && shown.replace(' ', "") == *text)
                    || shown.replace(' ', "_") == *text
            }
            Value::Array(_) | Value::Object(_) => false,
        };
        assert!(same, "{place}: the JSON says {value}, and the page {shown:?}");
    }
}

/// The values that are no containers, by their places.
fn leaves(place: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| leaves(&format!("{place}/{index}"), item, found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| leaves(&format!("{place}/{name}"), member, found));
        }
        leaf => drop(found.insert(place.to_owned(), leaf.clone())),
    }
}

fn forges(c: char) -> bool {
    c.is_control()
        || "\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".contains(c)
}

/// The text of an element, without the elements in it.
fn text_of(html: &str) -> String {
    let parts = html.split('<').enumerate();
    let text: String =
        parts.map(|(index, part)| if index == 0 { part } else { part.split_once('>').unwrap().1 }).collect();
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

/// The names of the elements of a page.
fn elements(page: &str) -> Vec<&str> {
    let names = page.split('<').skip(1).map(|rest| rest.split([' ', '>', '\n']).next().unwrap());
    names.map(|name| name.trim_start_matches('/')).collect()
}

/// Compares a page or document with its snapshot, without ids, times, hashes and style.
macro_rules! document_snapshot {
    ($world:expr, $name:expr, $text:expr) => {{
        let folder = match &$world.database {
            Database::Sqlite(db) => db.folder.path().display().to_string(),
            Database::Postgres(_) => "no folder".to_owned(),
        };
        insta::with_settings!({
            filters => vec![
                (ID, NO_ID),
                (r"(?s)<style>.*</style>", "<style>STYLE</style>"),
                (r"([0-9a-f]{8} ){7}[0-9a-f]{8}", "HASH"),
                (r"[0-9a-f]{64}", "HASH"),
                (r"\d{4}-\d\d-\d\d( |T)\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)", "TIME"),
                (r"PostgreSQL, [^\s]+ on [^\s<]+", "PostgreSQL, NAME on HOST"),
                (r"eventseal \d+\.[^\s<,]+", "eventseal 1.2"),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($world.snapshot_of($name), $text.replace(&folder, "FOLDER")) });
    }};
}

/// A person with another scope is not erased: the certificate says so under its headline.
async fn a_certificate_names_other_spellings_that_are_live(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    let (document, page) = issued(&world, &OF, 0);
    assert!(!document["remarks"].to_string().contains("similar_scopes"), "{document}");
    world.run(&["hold", "Customer", "CUST_1", "--reason", "r", "--allow-unknown"]).ended(0);
    let said = "other scopes under this id, which are not shredded: Customer CUST_1 (live)";
    let again = issued(&world, &OF, 0);
    assert!(again.0["remarks"].to_string().contains(said), "{}", again.0);
    assert!(again.0["remarks"].to_string().contains("similar_scopes"), "{}", again.0);
    let note = |page: &str| text_of(page).find(said);
    assert!(note(&page).is_none() && note(&again.1).unwrap() < text_of(&again.1).find("Stored events").unwrap());
    let text = world.run(&OF).ended(0).out;
    assert!(text.lines().take(4).any(|line| line.contains(said)), "{text}");
}

async fn a_certificate_is_issued_as_text_json_and_page(world: World) {
    let world = world.with_keys(0..3).await;
    world.append(0..3).await.unwrap();
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--actor", "clerk 7", "--yes"]).ended(0);
    let arguments = [&OF[..], &COPIES].concat();
    let text = world.run(&arguments).ended(0);
    assert!(text.out.starts_with("Customer cust_1: ERASED, NOT PROVED YET\n"), "{text:?}");
    document_snapshot!(world, "certificate", text.out);
    let (document, page) = issued(&world, &arguments, 0);
    assert_eq!((&document["erased"], &document["proved"]), (&true.into(), &false.into()));
    assert_eq!((&document["events"]["unreadable_fields"], &document["live_keys"]), (&2.into(), &0.into()));
    document_snapshot!(world, "certificate_json", format!("{document:#}"));
    document_snapshot!(world, "certificate_page", page);

    // It opens without a network, and runs nothing.
    let allowed = [
        "!DOCTYPE", "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "div", "strong",
        "span", "bdi", "dl", "dt", "dd", "table", "thead", "tbody", "tfoot", "tr", "th", "td", "ul", "li", "section",
        "footer",
    ];
    let others: Vec<_> = elements(&page).into_iter().filter(|name| !allowed.contains(name)).collect();
    assert!(others.is_empty(), "{others:?}");
    for reference in ["http:", "https:", "url(", "@import", "src=", "href=", "javascript:"] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert!(page.contains("<title>Certificate of erasure: Customer cust_1</title>"));
    assert!(page.contains("<strong>Erased, not proved yet</strong>"));
}

async fn a_copy_proves_an_erasure(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--actor", "clerk 7", "--yes"]).ended(0);
    let copy = world.folder.path().join("shop.shredlog");
    let file = copy.to_str().unwrap();
    let with_copy = [&OF[..], &["--shred-log", file]].concat();
    let (document, page) = issued(&world, &with_copy, 5);
    assert_eq!((&document["erased"], &document["proved"]), (&true.into(), &false.into()), "the copy is empty");
    assert!(page.contains("<strong>Erased, not proved yet</strong>"));
    world.run(&["shred-log", "export", "--append", file]).ended(0);

    let text = world.run(&with_copy).ended(0);
    assert!(text.out.starts_with("Customer cust_1: ERASED\n"), "{text:?}");
    document_snapshot!(world, "certificate_proved", text.out.replace(file, "COPY"));
    let (document, page) = issued(&world, &with_copy, 0);
    assert_eq!((&document["proved"], &document["log"]["copies"][0]["state"]), (&true.into(), &"complete".into()));
    assert_eq!(document["entries"][0]["log"]["standing"], "in_copy");
    assert!(page.contains("<strong>Erased</strong>"));
    document_snapshot!(world, "certificate_proved_page", page.replace(file, "COPY"));

    // Somebody who may write to the database takes the row of the shred out of the chain, and then of another entry.
    world.run(&["disable", "Customer", "cust_2", "--reason", "stop"]).ended(0);
    world.run(&["shred-log", "export", "--append", file]).ended(0);
    let guard = if world.is_postgres() {
        "DROP TRIGGER rows_stay ON shred_log"
    } else {
        "DROP TRIGGER shred_log_stays; DROP TRIGGER shred_log_stays_as_it_is"
    };
    world.execute(format!("{guard}; CREATE TABLE kept AS SELECT * FROM shred_log")).await;
    for (seq, code) in [(2, 5), (1, 6)] {
        world.execute(format!("DELETE FROM shred_log WHERE seq = {seq}")).await;
        let (document, _) = issued(&world, &OF, code);
        assert_eq!((&document["proved"], &document["log"]["sound"]), (&false.into(), &false.into()));
        issued(&world, &with_copy, code);
        world.execute("DELETE FROM shred_log; INSERT INTO shred_log SELECT * FROM kept").await;
        world.run(&with_copy).ended(0);
    }
    // A copy of something else proves nothing.
    std::fs::write(&copy, "{}\n").unwrap();
    let (document, _) = issued(&world, &with_copy, 5);
    assert!(document["log"]["copies"] == serde_json::json!([]), "{document}");
}

async fn what_is_not_erased_has_an_exit_code_of_its_own(world: World) {
    let world = world.with_keys(0..3).await;
    let kinds = |document: &Value| -> Vec<String> {
        document["why_not"].as_array().unwrap().iter().map(|of| of["kind"].as_str().unwrap().to_owned()).collect()
    };
    let (document, page) = issued(&world, &OF, 6);
    assert_eq!(kinds(&document), ["never_shredded", "live_keys"]);
    assert!(page.contains("<strong>Not erased</strong>") && document["horizon"].is_null());
    let text = world.run(&OF).ended(6);
    assert!(text.out.starts_with("Customer cust_1: NOT ERASED\n  The scope is not shredded."), "{text:?}");

    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    world.run(&["reopen", "Customer", "cust_1", "--reason", "came back, order 7"]).ended(0);
    let (document, _) = issued(&world, &OF, 6);
    assert_eq!(kinds(&document), ["reopened", "live_keys"]);
    assert!(document["why_not"][0]["text"].as_str().unwrap().ends_with("came back, order 7"), "{document}");

    // Somebody who may write to the table alters the reason of a shred.
    world.run(&["shred", "Customer", "cust_0", "--reason", "request 117", "--yes"]).ended(0);
    let guard = if world.is_postgres() {
        "DROP TRIGGER rows_stay_as_they_are ON shred_entries"
    } else {
        "DROP TRIGGER shred_entries_stay_as_they_are"
    };
    world.execute(format!("{guard}; UPDATE shred_entries SET reason = 'other' WHERE scope_id = 'cust_0'")).await;
    let (document, page) = issued(&world, &["certificate", "Customer", "cust_0"], 6);
    assert_eq!(kinds(&document), ["log_altered"]);
    assert_eq!(document["entries"][0]["authenticity"], "not_verified");
    assert!(page.contains("Entry 1 of the scope in the shred log"), "{page}");

    world.run(&["certificate", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");
    let refused = world.run(&["certificate", "customer", "cust_1", "--json"]).refused(4, "unknown_scope");
    assert!(refused.error()["message"].as_str().unwrap().contains("Customer cust_1"), "{refused:?}");
    let without = run(world.command(&[&OF[..], &["--json"]].concat()).env_remove("EVENTSEAL_KEYRING_FILE"));
    without.refused(2, "usage");
    world.run(&[&OF[..], &["--events-table", "none", "--json"]].concat()).refused(1, "no_events");
}

async fn hostile_texts_stay_texts(world: World) {
    let world = world.with_keys(0..1).await;
    let script = "<script>alert('1')</script>\"&amp;\u{5d0}\u{5d1}\u{202e}x";
    let long = "9".repeat(200);
    let reason = "</span></td></table><img src=x onerror=alert(1)>\u{202e}\n\"'";
    for id in [script, &long] {
        world
            .run(&["shred", "</title><b>", id, "--reason", reason, "--actor", reason, "--yes", "--allow-unknown"])
            .ended(0);
        let (document, page) = issued(&world, &["certificate", "</title><b>", id], 0);
        assert_eq!((&document["scope"]["id"], &document["entries"][0]["reason"]), (&id.into(), &reason.into()));
        for element in elements(&page) {
            assert!(!["script", "img", "b"].contains(&element), "{page}");
        }
        assert!(!page.contains(forges_but_line_ends), "{page:?}");
        let text = world.run(&["certificate", "</title><b>", id]).ended(0);
        assert!(!text.out.contains(forges_but_line_ends), "{text:?}");
    }
}

fn forges_but_line_ends(c: char) -> bool {
    forges(c) && c != '\n'
}

async fn the_horizon_is_what_was_said_about_copies(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    let (document, page) = issued(&world, &OF, 0);
    assert!(document["horizon"]["at"].is_null() && page.contains("<p>Known time: "), "{document}");
    assert_eq!(document["horizon"]["unknown"].as_array().unwrap().len(), 3);

    let (document, page) = issued(&world, &[&OF[..], &COPIES].concat(), 0);
    let time = |of: &str| {
        let text = document["horizon"][of].as_str().unwrap();
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
    };
    assert_eq!(time("at") - time("shredded_at"), time::Duration::days(35));
    assert!(page.contains("no copy of the keys opens what was shredded at"));
    let from_environment = run(world.command(&[&OF[..], &["--json"]].concat()).env("EVENTSEAL_RETENTION", COPIES[1]));
    assert_eq!(from_environment.ended(0).json()["horizon"], document["horizon"]);
    let sooner = ["--master-key-deletion", "2026-01-01"];
    let sooner = world.json(&[&OF[..], &COPIES, &sooner].concat())["horizon"].clone();
    assert_eq!(sooner["at"], sooner["shredded_at"], "no copy opens without the master key: {sooner}");

    for bad in ["backups=35", "tapes=1d", "backups=1d,backups=1d"] {
        world.run(&[&OF[..], &["--retention", bad, "--json"]].concat()).refused(2, "usage");
        world.run(&["status", "--retention", bad, "--json"]).refused(2, "usage");
    }
    assert!(world.json(&["status"])["horizon"]["at"].is_null());
    assert!(world.json(&[&["status"], &COPIES[..]].concat())["horizon"]["at"].is_string());
    let status = world.run(&[&["status"], &COPIES[..]].concat()).ended(0);
    assert!(status.out.contains("Horizon of everything shredded until now: from 2"), "{status:?}");
}

async fn a_page_is_written_once_and_for_its_owner_alone(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    let path = new_file(&world);
    let arguments = |path: &Path| {
        [&OF[..], &["--html", path.to_str().unwrap()]].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let run = |path: &Path, more: &[&str]| {
        let arguments = arguments(path);
        world.run(&[&arguments.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat())
    };
    let said = run(&path, &[]).ended(0);
    assert!(said.out.contains(&format!("The page is in {}.", path.display())), "{said:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    run(&path, &["--json"]).refused(1, "io");
    assert_eq!(std::fs::read(&path).unwrap(), before, "a certificate is never overwritten");
    let nowhere = world.folder.path().join("no").join("page.html");
    run(&nowhere, &["--json"]).refused(1, "io");
    // A disk that is full leaves no half of a page. SQLite has to write files of its own, so PostgreSQL does here.
    if world.is_postgres() {
        let cut_off = new_file(&world);
        let limited = ["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_eventseal")];
        let mut bash = Command::new("bash");
        bash.args(limited).args(OF).args(["--json", "--html", cut_off.to_str().unwrap()]).env_clear();
        bash.env("DATABASE_URL", world.url()).env("EVENTSEAL_KEYRING_FILE", world.folder.path().join("ring"));
        let refused = super::run(&mut bash).refused(1, "io");
        assert!(refused.error()["message"].as_str().unwrap().contains("can't be written"), "{refused:?}");
        assert!(!cut_off.exists());
    }
}
