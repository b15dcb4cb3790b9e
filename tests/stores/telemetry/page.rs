//! docs/operations.md lists every metric, span and field: what is recorded is what is listed, and nothing else.

use super::recorder::Series;
use super::*;
use eventseal::ExpectedVersion::Any;
use eventseal::error::ErrorKind;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::{EventStore, EventStoreExt, Namespace, SealedStore, aggregate};
use metrics::Unit;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use support::sources::{repository, rust_files};
use support::{KEYRING, customer_scope};

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The words in code of a cell.
fn words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the table on the page whose heading begins with this.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let rows = lines.by_ref().take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.replace(r"\|", "/").trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "there is no table that begins with {heading}");
    rows
}

/// The metrics that the page lists.
fn listed(page: &str) -> BTreeSet<Series> {
    let rows = table(page, "| metric |").into_iter().map(|row| {
        let kind = if row[1] == "counter" { "counter" } else { "histogram" };
        (words(&row[0]).remove(0), kind, words(&row[2]).into_iter().collect())
    });
    rows.collect()
}

/// Does everything once that is counted.
async fn everything() -> Recorded {
    let recorded = Recorded::default();
    let listening = recorded.listen();
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let process = |schemas| SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas);
    let (store, reader) = (process(old_schemas()), process(schemas()));
    store.keys().prepare(&mut db.begin()).await.unwrap();
    let (order, scope) = (aggregate("Order", "1"), customer_scope("42"));
    let mut tx = db.begin();
    let events = [placed("42"), noted(), placed("43")];
    store.append(&mut tx, &order, Any, &events).await.unwrap();
    let value = store.seal_value(&mut tx, &scope, ["users", "name"], NAME).await.unwrap();
    store.open_value(&mut tx, &scope, ["users", "name"], &value).await.unwrap();
    reader.read_stream(&mut tx, &order).await.unwrap();
    store.keys().disable(&mut tx, &scope, "stop").await.unwrap();
    reader.read_stream(&mut tx, &order).await.unwrap_err();
    store.keys().shred(&mut tx, &scope, "request").await.unwrap();
    reader.read_stream(&mut tx, &order).await.unwrap();
    store.open_value(&mut tx, &scope, ["users", "name"], &value).await.unwrap();
    tx.commit().unwrap();
    drop(listening);
    recorded
}

#[tokio::test]
async fn the_metrics_are_those_of_the_page() {
    let (recorded, page) = (everything().await, text("docs/operations.md"));
    let listed = listed(&page);
    assert_eq!(recorded.series(true), listed, "what was counted is on the left");
    assert_eq!(recorded.series(false), listed, "what has a series is on the left");

    let described = recorded.described();
    let names: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(names, listed.iter().map(|(name, ..)| &**name).collect(), "what is described is on the left");
    for (name, kind, _) in &listed {
        let (described_as, unit, text) = &described[name];
        assert_eq!((described_as, name.ends_with("_total")), (kind, *kind == "counter"));
        assert_eq!(*unit, Some(if *kind == "counter" { Unit::Count } else { Unit::Seconds }));
        assert!(name.starts_with("eventseal_") && text.ends_with('.') && text.len() > 10, "{name}: {text}");
    }
}

/// An alert on a name that does not exist is silent for ever.
#[test]
fn alerts_name_metrics_and_kinds_that_exist() {
    let page = text("docs/operations.md");
    let listed = listed(&page);
    let alerts = table(&page, "| alert |");
    let mut named = BTreeSet::new();
    for alert in &alerts {
        let expression = words(&alert[1]).remove(0);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in expression.split(|c| !word(c)).filter(|name| name.starts_with("eventseal_")) {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(listed.iter().any(|(known, ..)| known == name), "{expression}: there is no {name}");
            named.insert(name.to_owned());
        }
        let mut kinds = expression.split("error_kind=").skip(1).filter_map(|rest| rest.split('"').nth(1));
        let kinds: Vec<&str> = kinds.by_ref().flat_map(|kinds| kinds.split('/')).collect();
        for kind in kinds {
            assert!(ErrorKind::ALL.iter().any(|known| known.as_str() == kind), "{expression}: there is no {kind}");
        }
    }
    assert!(alerts.len() >= 8 && named.len() >= 6, "{named:?}");
}

/// A series that appears with its first error is not seen to rise.
#[tokio::test]
async fn every_kind_of_error_has_a_series_from_the_start() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    assert_eq!(recorded.count("eventseal_errors_total", &[]), 0);
    let text = recorded.text();
    for kind in ErrorKind::ALL {
        assert!(text.contains(&format!("{:?}", kind.as_str())), "{kind}");
    }
    // So has everything else whose labels are known.
    let series: BTreeSet<String> = recorded.series(false).into_iter().map(|(name, ..)| name).collect();
    let late = ["eventseal_upcast_steps_total"];
    let missing = listed(&self::text("docs/operations.md"));
    let missing = missing.iter().map(|(name, ..)| &**name).filter(|name| !series.contains(*name));
    assert_eq!(missing.collect::<Vec<_>>(), late);
}

/// A span: its level, its target, and its fields.
type Span = (String, String, Vec<String>);

/// The spans of the source. That each of them is made of its own row, the macro sees to.
fn spans_of_the_source() -> BTreeMap<String, Span> {
    let source = text("src/telemetry.rs");
    let rows = source.split("spans! {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let mut spans = BTreeMap::new();
    for row in rows.split("\n    ").map(str::trim).collect::<Vec<_>>().join(" ").split(" }").map(str::trim) {
        for row in row.split("{} ").map(str::trim).filter(|row| !row.is_empty()) {
            let (head, fields) = row.split_once('{').unwrap_or((row, ""));
            let [level, target, name] = head.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let name = format!("eventseal.{}", name.split('(').next().unwrap());
            let fields = fields.split(',').map(|field| field.split('=').next().unwrap().trim().replace('%', ""));
            let fields = fields.filter(|field| !field.is_empty()).collect();
            let span = (level.to_owned(), target.replace('"', ""), fields);
            assert!(spans.insert(name.clone(), span).is_none(), "{name}");
        }
    }
    spans
}

#[test]
fn the_spans_are_those_of_the_page() {
    let rows = table(&text("docs/operations.md"), "| span |")
        .into_iter()
        .map(|row| (words(&row[0]).remove(0), (row[1].clone(), words(&row[2]).remove(0), words(&row[3]))));
    let listed: BTreeMap<String, Span> = rows.collect();
    let of_the_source = spans_of_the_source();
    assert!(of_the_source.len() > 40, "{of_the_source:?}");
    assert_eq!(of_the_source, listed, "what the source has is on the left");
}

/// What a run shows is what the source says.
#[tokio::test]
async fn spans_that_are_seen_are_those_of_the_source() {
    let seen = Seen::default();
    let listening = seen.listen();
    everything().await;
    drop(listening);
    let of_the_source = spans_of_the_source();
    let spans: Vec<_> = seen.take().into_iter().filter(|noted| noted.is_span).collect();
    assert!(spans.len() > 10, "{spans:?}");
    for span in spans {
        let (level, target, fields) = &of_the_source[span.name];
        assert_eq!((&span.level.to_string(), span.target), (level, &**target), "{}", span.name);
        let all: Vec<&str> = ["namespace", "error_kind"].into_iter().chain(fields.iter().map(String::as_str)).collect();
        assert_eq!(span.declared, all, "{}", span.name);
    }
}

/// The fields of every log event in a source.
fn fields_of_events(source: &str) -> Vec<String> {
    let mut fields = Vec::new();
    for level in ["warn", "info", "debug", "trace", "error"] {
        for event in source.split(&format!("tracing::{level}!(")).skip(1) {
            let arguments = event.split('"').next().unwrap();
            let (mut depth, mut field) = (0, String::new());
            for c in arguments.chars() {
                depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
                if c != ',' || depth > 0 {
                    field.push(c);
                    continue;
                }
                let name = field.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned();
                fields.push(name);
                field.clear();
            }
        }
    }
    fields
}

#[test]
fn every_field_is_on_the_page_and_in_use() {
    let rows = table(&text("docs/operations.md"), "| field |");
    let listed: Vec<String> = rows.iter().flat_map(|row| words(&row[0])).collect();
    let listed_once: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(listed.len(), listed_once.len(), "a field is listed twice");
    let sources = rust_files(&repository().join("src"));
    let mut used: BTreeSet<String> = ["namespace", "error_kind"].map(str::to_owned).into();
    used.extend(spans_of_the_source().into_values().flat_map(|(.., fields)| fields));
    let events = sources.iter().flat_map(|source| fields_of_events(&fs::read_to_string(source).unwrap()));
    used.extend(events);
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(used, listed_once, "what is in use is on the left");
}
