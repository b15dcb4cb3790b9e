//! The public names of the library are those that `facade.txt` lists, one line each, so that a pull request shows what
//! it adds and takes away. Each public item has one path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use support::sources::{Library, joined, repository};

/// What tells a derive from the trait of its name.
const DERIVE: &str = " (derive)";

/// Public names by their paths, each with its kind and its home: module and name where it is defined.
fn names(library: &Library) -> BTreeMap<String, (String, String)> {
    let mut names = BTreeMap::new();
    for (path, module) in library.modules.iter().filter(|(_, module)| module.public && !module.hidden) {
        if !path.is_empty() {
            names.insert(path.clone(), ("mod".to_owned(), path.clone()));
        }
        for item in module.items.iter().filter(|item| item.public && !item.hidden) {
            names.insert(joined(path, &item.name), (kind(&item.kind), joined(path, &item.name)));
        }
        for used in module.uses.iter().filter(|used| used.public) {
            if used.name == "*" {
                let (from, _) = library.home(&used.path).unwrap_or_else(|| panic!("{path}: what is {:?}?", used.path));
                for item in library.modules[&from].items.iter().filter(|item| item.public && !item.hidden) {
                    names.insert(joined(path, &item.name), (kind(&item.kind), joined(&from, &item.name)));
                }
                continue;
            }
            // A macro of the crate of the derives, beside the trait of its name.
            if let [source, name] = &used.path[..]
                && source == "eventseal_derive"
            {
                names.insert(format!("{name}{DERIVE}"), ("derive".to_owned(), format!("{source}::{name}")));
                continue;
            }
            let (home, name) = library.home(&used.path).unwrap_or_else(|| panic!("{path}: what is {:?}?", used.path));
            let name = name.unwrap_or_else(|| panic!("{path} gives the module {home} a second path"));
            let item = library.modules[&home].items.iter().find(|item| item.name == name).unwrap();
            names.insert(joined(path, &used.name), (kind(&item.kind), joined(&home, &name)));
        }
    }
    names
}

fn kind(keyword: &str) -> String {
    if keyword == "macro_rules" { "macro".to_owned() } else { keyword.to_owned() }
}

#[test]
fn public_names_are_those_of_the_list() {
    let names = names(&Library::read());
    let lines: Vec<_> =
        names.iter().map(|(path, (kind, _))| format!("{kind} eventseal::{}", path.trim_end_matches(DERIVE))).collect();
    let file = repository().join("tests/it/facade.txt");
    if std::env::var_os("FACADE").is_some_and(|mode| mode == "record") {
        fs::write(&file, lines.join("\n") + "\n").unwrap();
    }
    let listed = fs::read_to_string(&file).unwrap();
    let (listed, found): (BTreeSet<&str>, BTreeSet<&str>) =
        (listed.lines().collect(), lines.iter().map(String::as_str).collect());
    let more: Vec<_> = found.difference(&listed).map(|line| format!("+ {line}")).collect();
    let less: Vec<_> = listed.difference(&found).map(|line| format!("- {line}")).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "the public names are not those of tests/it/facade.txt:\n{}\nif that is meant, run this test with \
         FACADE=record and read the diff",
        [more, less].concat().join("\n")
    );
}

#[test]
fn each_public_item_has_one_path() {
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, (_, home)) in names(&Library::read()) {
        paths.entry(home).or_default().push(path);
    }
    paths.retain(|_, paths| paths.len() > 1);
    assert!(paths.is_empty(), "public items with several paths: {paths:#?}");
}
