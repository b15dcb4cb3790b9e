//! The imports of the library follow the table of layers in CONTRIBUTING.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use support::sources::{Library, repository};

/// Arrows that run up today, each with its reason. This list may only shrink: an entry that no longer occurs fails the
/// test.
const KNOWN: &[(&str, &str, &str)] = &[(
    "event",
    "seal",
    "`PersistedEvent::decode` refuses ciphertext, and only the sealed format knows the sign of it",
)];

struct Layer {
    name: String,
    modules: Vec<String>,
    may_import: Vec<String>,
}

/// The rows of the table whose first column is `layer`.
fn layers(text: &str) -> Vec<Layer> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("| layer |"));
    assert!(lines.next().is_some(), "CONTRIBUTING.md has no table that begins with `| layer |`");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, modules, may_import] = cells[..] else { panic!("a row of the layers without three cells: {row}") };
        let modules = modules.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let may_import = may_import.split(',').map(|name| name.trim().to_owned()).collect();
        Layer { name: name.to_owned(), modules, may_import }
    })
    .collect()
}

/// The module of the table that `module` is, or lies in: the longest that fits.
fn named<'a>(module: &str, of: &BTreeMap<&'a str, &Layer>) -> Option<&'a str> {
    let fits = |name: &str| module == name || module.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    of.keys().copied().filter(|name| fits(name)).max_by_key(|name| name.len())
}

#[test]
fn imports_follow_the_layers() {
    let library = Library::read();
    let layers = layers(&fs::read_to_string(repository().join("CONTRIBUTING.md")).unwrap());
    let mut of: BTreeMap<&str, &Layer> = BTreeMap::new();
    let mut crates = BTreeSet::new();
    let mut wrong = Vec::new();
    for layer in &layers {
        for module in &layer.modules {
            if module.starts_with("crates/") {
                crates.insert(module.clone());
            } else if !library.modules.contains_key(module.as_str()) {
                wrong.push(format!("the row `{}` names `{module}`, and src has no such module", layer.name));
            } else if of.insert(module, layer).is_some() {
                wrong.push(format!("`{module}` is in two rows"));
            }
        }
    }

    let folders = fs::read_dir(repository().join("crates")).unwrap();
    let there: BTreeSet<_> =
        folders.map(|folder| format!("crates/{}", folder.unwrap().file_name().display())).collect();
    if there != crates {
        wrong.push(format!("the crates are {there:?}, and the table names {crates:?}"));
    }
    let is_named = |name: &String| {
        name == "nothing else" || name == "the public API alone" || layers.iter().any(|layer| layer.name == *name)
    };
    for layer in &layers {
        for name in layer.may_import.iter().filter(|name| !is_named(name)) {
            wrong.push(format!("the row `{}` may import `{name}`, and no row is called so", layer.name));
        }
    }

    // A module that is split between layers names each of its children; the others stand for all that lies in them.
    for path in library.modules.keys().filter(|path| !path.is_empty()) {
        let parent = path.rsplit_once("::").map_or("", |(parent, _)| parent);
        let parent_is_split =
            of.keys().any(|name| name.strip_prefix(parent).is_some_and(|rest| rest.starts_with("::")));
        if named(path, &of).is_none() || (parent_is_split && !of.contains_key(path.as_str())) {
            wrong.push(format!("no row names `{path}`"));
        }
    }

    let mut met = BTreeSet::new();
    for (path, module) in library.modules.iter().filter(|(path, _)| !path.is_empty()) {
        let Some(from) = named(path, &of) else { continue };
        for way in &module.paths {
            let Some((home, _)) = library.home(way) else { continue };
            let Some(to) = named(&home, &of) else { continue };
            if from == to || of[from].may_import.contains(&of[to].name) {
                continue;
            }
            if let Some(known) = KNOWN.iter().find(|known| known.0 == from && known.1 == to) {
                met.insert(*known);
                continue;
            }
            let (above, below) = (&of[from].name, &of[to].name);
            wrong.push(format!("`{path}` ({above}) imports crate::{}, which is in `{home}` ({below})", way.join("::")));
        }
    }
    for (from, to, _) in KNOWN.iter().filter(|known| !met.contains(*known)) {
        wrong.push(format!("`{from}` no longer imports `{to}`: take the arrow out of KNOWN"));
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "the imports do not follow CONTRIBUTING.md:\n{}", wrong.join("\n"));
}

/// Crates that encrypt, hash or draw random bytes.
const CIPHERS: &[&str] = &["aes_gcm", "aws_lc_rs", "getrandom", "hkdf", "hmac", "rand", "ring", "sha2"];

/// The modules that may name them (`aws_lc_rs` has modules that are called like crates). With the feature `aws-lc-rs`
/// nothing is left to RustCrypto: nobody would notice a call that is.
const BACKENDS: &[(&str, &[&str])] = &[
    ("crypto::aws_lc", &["aws_lc_rs", "hkdf", "hmac", "rand"]),
    ("crypto::random", &["getrandom"]),
    ("crypto::rust_crypto", &["aes_gcm", "hkdf", "hmac", "sha2"]),
];

#[test]
fn ciphers_and_hashes_are_named_by_the_backends_alone() {
    let mut found = BTreeSet::new();
    for path in Library::read().modules.into_keys() {
        let file = repository().join("src").join(path.replace("::", "/")).with_extension("rs");
        // A module within another one's file has none.
        let Ok(text) = fs::read_to_string(file) else { continue };
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let before = line.match_indices("::").map(|(at, _)| &line[..at]);
            let words = before.filter_map(|text| text.rsplit(|end: char| !end.is_alphanumeric() && end != '_').next());
            found.extend(
                words.filter_map(|word| CIPHERS.iter().find(|name| **name == word)).map(|name| (path.clone(), *name)),
            );
        }
    }
    let may: BTreeSet<_> =
        BACKENDS.iter().flat_map(|(path, names)| names.iter().map(|name| ((*path).to_owned(), *name))).collect();
    assert_eq!(found, may);
}
