//! The table of locks on the page has every clause of `src/postgres` that another database must have too.

use super::page::page;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What is looked for, and the name under which the page has it. A longer one comes before one that is part of it.
const CLAUSES: &[&str] = &[
    "FOR NO KEY UPDATE",
    "FOR KEY SHARE",
    "FOR SHARE",
    "FOR UPDATE",
    "SKIP LOCKED",
    "LOCK TABLE",
    "ON CONFLICT",
    "MATERIALIZED",
    "ISOLATION LEVEL",
    "pg_notify",
    "setval",
    "pg_xact_status",
    "pg_current_xact_id_if_assigned",
    "pg_postmaster_start_time",
    "synchronous_commit",
];

/// A statement that changes rows within another one.
const WRITING_CTE: &str = "AS (INSERT / UPDATE / DELETE";

type Found = BTreeMap<String, BTreeSet<String>>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { sources(&path, found) } else { found.push(path) }
    }
}

/// The name of the constant, the statement or the function that begins on this line.
fn begun(line: &str) -> Option<&str> {
    let name = |text: &'static str| {
        let (_, rest) = line.split_once(text)?;
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        Some(&rest[..end])
    };
    if line.trim_start().starts_with("//") {
        return None;
    }
    if let Some(name) = name("const ").or_else(|| name("fn ")).filter(|name| !name.is_empty()) {
        return Some(name);
    }
    // A statement within `statements! { … }`.
    let (name, text) = line.strip_prefix("    ")?.split_once(": ")?;
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_text = ["\"", "r#\"", "&format!(", "&log::", "keys::", "log::"].iter().any(|begin| text.starts_with(begin));
    (is_name && is_text).then_some(name)
}

fn of_the_sources() -> Found {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/postgres"), &mut files);
    let mut found = Found::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (mut name, mut before) = (String::new(), "");
        for line in text.lines().take_while(|line| *line != "#[cfg(test)]") {
            if let Some(begun) = begun(line) {
                name = begun.to_owned();
            }
            if line.trim_start().starts_with("//") {
                continue;
            }
            let mut rest = line.to_owned();
            let mut note = |clause: &str| {
                found.entry(clause.to_owned()).or_default().insert(name.clone());
            };
            for clause in CLAUSES {
                if rest.contains(clause) {
                    rest = rest.replace(clause, "");
                    note(clause);
                }
            }
            let writes = ["INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| line.trim_start().starts_with(verb));
            if writes && before.trim_end().ends_with("AS (") {
                note(WRITING_CTE);
            }
            before = line;
        }
    }
    found
}

/// The rows of the page's table: `clause` and the names of the second column.
fn of_the_page() -> Found {
    let page = page();
    let (_, table) = page.split_once("| clause | where |").expect("the page has the table of locks");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        (quoted(cells[0]).remove(0), quoted(cells[1]).into_iter().collect())
    })
    .collect()
}

#[test]
fn every_lock_of_a_statement_is_on_the_page() {
    let (sources, page) = (of_the_sources(), of_the_page());
    assert!(sources["FOR SHARE"].contains("share_scopes") && sources["FOR UPDATE"].contains("lock_scopes"));
    let mut wrong = Vec::new();
    for (clause, names) in &sources {
        let known = page.get(clause).cloned().unwrap_or_default();
        for name in names.difference(&known) {
            wrong.push(format!("`{clause}` in `{name}` is not on the page"));
        }
        for name in known.difference(names) {
            wrong.push(format!("the page has `{clause}` in `{name}`, and src/postgres has not"));
        }
    }
    for clause in page.keys().filter(|clause| !sources.contains_key(*clause)) {
        wrong.push(format!("the page has `{clause}`, and src/postgres has not"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
