//! The pages that people read: each block of code in them is tested or says why not, and each link leads somewhere, on
//! the repository's site as well as in the library's documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use support::sources::repository;

/// The pages, and the names under which the documentation has them as well.
const PAGES: &[(&str, Option<&str>)] = &[
    ("README.md", None),
    ("SECURITY.md", None),
    ("CONTRIBUTING.md", None),
    ("CHANGELOG.md", None),
    ("docs/operations.md", Some("operations")),
    ("docs/evolution.md", Some("evolution")),
    ("docs/erasure.md", Some("erasure")),
    ("docs/command-json.md", Some("command_json")),
    ("docs/format.md", Some("format")),
    ("docs/scaling.md", Some("scaling")),
    ("docs/performance.md", None),
    ("examples/README.md", None),
    ("crates/eventseal-cli/README.md", None),
    ("crates/eventseal-testing/README.md", None),
];

/// The sources that include pages, so that the pages' Rust code is compiled and run.
const COMPILED_IN: &[&str] = &["src/lib.rs", "crates/eventseal-testing/src/lib.rs"];

/// The beginnings of SQL that other tests run, and the names of these tests.
const SQL: &[(&str, &str)] = &[
    ("CREATE ROLE shop_reader", "grants.rs of the command runs it, and what each role may do after it"),
    ("GRANT SELECT ON events TO shop_eraser", "grants.rs runs it too, and issues a certificate after it"),
    ("ATTACH 'shop.db' AS original", "maintenance_copies.rs runs it"),
    ("GRANT SELECT, INSERT ON shred_log_copy", "shred_log/copies.rs runs it, and exports as that role"),
    ("ALTER SYSTEM SET synchronous_standby_names", "scaling/strict.rs runs it on a primary that has a standby"),
    ("ALTER ROLE shop_eraser", "scaling/strict.rs runs it, and shreds as that role"),
    ("SELECT pg_last_wal_replay_lsn()", "scaling/standby.rs runs it on a standby, before and after the replay"),
];

/// The beginnings of lines of shell, and the reason why they need no test here.
const SHELL: &[(&str, &str)] = &[
    ("eventseal", "the command's tests hold these lines against its arguments (args/guides.rs)"),
    ("cargo", "what it names is looked for here"),
    ("./scripts/test", "this is what runs these tests"),
    ("./scripts/bench", "scripts/test runs it, and its own tests hold its options"),
    ("export", "sets a variable for the lines below"),
    ("set", "makes the next line fail where it should; maintenance_copies.rs runs both"),
    ("pg_dump", "maintenance_copies.rs runs it"),
    ("psql", "maintenance_copies.rs runs it"),
    ("EVENTSEAL_GOLDEN=record", "guards record and check in tests of their own"),
    ("cp", "the command's page.rs runs it"),
    ("rm", "the command's page.rs runs it"),
    ("pg_restore", "the command's page.rs runs it"),
    ("head", "the command's page.rs runs it"),
    ("umask", "makes a keyring, in the form that the command's keyrings.rs makes"),
    ("{", "makes a keyring, in the form that the command's keyrings.rs makes"),
    ("(umask", "makes a keyring, in the form that the command's keyrings.rs makes"),
    ("aws", "needs an account of AWS; what the library calls is run against a KMS on this machine"),
    ("key=$(aws", "needs an account of AWS; what the library calls is run against a KMS on this machine"),
];

const COLUMNS: usize = 120;

struct Block {
    page: &'static str,
    line: usize,
    language: String,
    text: String,
}

impl Block {
    fn at(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

fn read(page: &str) -> String {
    fs::read_to_string(repository().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The lines of a page that are no code, with their numbers, and its blocks of code.
fn parts(page: &'static str) -> (Vec<(usize, String)>, Vec<Block>) {
    let (mut prose, mut blocks): (_, Vec<Block>) = (Vec::new(), Vec::new());
    let mut inside = false;
    for (index, line) in read(page).lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                inside = true;
                let language = language.to_owned();
                blocks.push(Block { page, line: index + 1, language, text: String::new() });
            }
            None if inside => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => prose.push((index + 1, line.to_owned())),
        }
    }
    assert!(!inside, "{page}: a block of code has no end");
    (prose, blocks)
}

/// A block's problem, if it has one.
fn problem(block: &Block, compiled: &BTreeSet<&'static str>) -> Option<String> {
    let too_long = |line: &&str| line.chars().count() > COLUMNS && block.language != "text";
    if let Some(line) = block.text.lines().find(too_long) {
        return Some(format!("a line is longer than {COLUMNS} columns: {line}"));
    }
    match block.language.as_str() {
        "text" => None,
        "rust" | "rust,test_harness" if compiled.contains(block.page) => None,
        "rust" | "rust,test_harness" => {
            Some(format!("nothing compiles it: include the page in one of {COMPILED_IN:?}"))
        }
        "json" => serde_json::from_str::<serde_json::Value>(&block.text).err().map(|error| error.to_string()),
        "sql" => None, // see `sql_of_the_pages_runs`
        "sh" => {
            let text = block.text.replace("\\\n", "");
            text.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(shell_problem)
        }
        "" => Some("it has no language: say `text` if it is no code".to_owned()),
        other => Some(format!("nothing tests blocks of `{other}`: test them, and say so in guides.rs")),
    }
}

fn shell_problem(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if !SHELL.iter().any(|(known, _)| *known == program) {
        return Some(format!("nothing tests lines of shell that begin with `{program}`"));
    }
    let words: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
    let file = match (after("--example"), after("--path")) {
        (Some(name), _) => format!("examples/{name}.rs"),
        // From a crate beside this repository, or from within.
        (_, Some(path)) => format!("{}/Cargo.toml", path.trim_start_matches("../eventseal").trim_start_matches('/')),
        _ => return None,
    };
    let there = repository().join(file.trim_start_matches('/')).is_file();
    (program == "cargo" && !there).then(|| format!("`{line}` names {file}, which is not there"))
}

#[test]
fn code_of_the_pages_is_tested_or_says_why_not() {
    let includes: Vec<String> = COMPILED_IN.iter().map(|file| read(file)).collect();
    let is_compiled = |page: &str| {
        includes.iter().any(|text| {
            text.split("include_str!(\"").skip(1).any(|rest| {
                let path = rest.split('"').next().unwrap().trim_start_matches("../");
                path == page || (path == "README.md" && page.ends_with("eventseal-testing/README.md"))
            })
        })
    };
    let compiled: BTreeSet<_> = PAGES.iter().map(|(page, _)| *page).filter(|page| is_compiled(page)).collect();
    let blocks = PAGES.iter().flat_map(|(page, _)| parts(page).1);
    let problems: Vec<_> = blocks
        .filter_map(|block| problem(&block, &compiled).map(|problem| format!("{}: {problem}", block.at())))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let text = |of: fn(&Block) -> bool| -> String {
        PAGES.iter().flat_map(|(page, _)| parts(page).1).filter(of).map(|block| block.text).collect()
    };
    let (shell, sql) = (text(|block| block.language == "sh"), text(|block| block.language == "sql"));
    let unused = |known: &&(&str, &str), text: &str| !text.lines().any(|line| line.trim_start().starts_with(known.0));
    let unused: Vec<_> = SHELL
        .iter()
        .filter(|known| unused(known, &shell))
        .chain(SQL.iter().filter(|known| unused(known, &sql)))
        .collect();
    assert!(unused.is_empty(), "take these out of the lists, no page has them: {unused:?}");
}

#[test]
fn the_quick_start_is_short() {
    let (_, blocks) = parts("README.md");
    let first = blocks.iter().find(|block| block.language == "rust").unwrap();
    let lines = first.text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 40, "the quick start has {lines} lines");
}

#[test]
fn all_pages_are_known() {
    let pages = fs::read_dir(repository()).unwrap().chain(fs::read_dir(repository().join("docs")).unwrap());
    let names = pages.map(|page| page.unwrap().path().strip_prefix(repository()).unwrap().to_str().unwrap().to_owned());
    let unknown: Vec<_> =
        names.filter(|name| name.ends_with(".md") && !PAGES.iter().any(|(page, _)| page == name)).collect();
    assert!(unknown.is_empty(), "add these to PAGES: {unknown:?}");
}

/// The anchor of a heading, by the rules of the repository's site.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The anchor of a heading, by the rules of rustdoc: outside code, it turns hyphens into dashes first.
fn anchor_in_documentation(heading: &str) -> String {
    let spans = heading.split('`').enumerate();
    let shown =
        spans.map(|(at, text)| if at % 2 == 1 { text.to_owned() } else { text.replace("---", "—").replace("--", "–") });
    anchor(&shown.collect::<String>())
}

/// Names that every page of the documentation has for something else: a heading of that name gets another one.
const RESERVED: &[&str] = &["search", "settings", "help", "main-content", "fields", "variants", "implementations"];

/// The anchors of a page, on the repository's site or in the documentation. The second heading of a name gets `-1`.
fn anchors(prose: &[(usize, String)], name: fn(&str) -> String, reserved: &[&str]) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = reserved.iter().map(|name| ((*name).to_owned(), 1)).collect();
    let headings = prose
        .iter()
        .filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    headings
        .map(|heading| {
            let text = unlinked(heading.trim());
            let anchor = name(&text);
            let before = seen.entry(anchor.clone()).or_default();
            *before += 1;
            if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
        })
        .collect()
}

/// `[text](target)` without the target.
fn unlinked(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replacen('[', "", 1));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// Where the links of a page lead: `[text](target)` and `[name]: target`, outside code.
fn targets(prose: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (number, line) in prose {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in outside.split("](").skip(1) {
            targets.push((*number, rest.split(')').next().unwrap().to_owned()));
        }
        if let Some((name, target)) = outside.split_once("]: ")
            && name.starts_with('[')
        {
            targets.push((*number, target.trim().to_owned()));
        }
    }
    targets
}

/// Links by name, `[text][name]`, each of which needs a `[name]: target` on its page.
fn undefined(prose: &[(usize, String)]) -> Vec<(usize, String)> {
    let defined: BTreeSet<&str> =
        prose.iter().filter_map(|(_, line)| line.strip_prefix('[')?.split_once("]: ").map(|(name, _)| name)).collect();
    let used = prose.iter().flat_map(|(number, line)| {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let names =
            outside.split("][").skip(1).filter_map(|rest| rest.split_once(']').map(|(name, _)| name.to_owned()));
        names.map(|name| (*number, name)).collect::<Vec<_>>()
    });
    used.filter(|(_, name)| !defined.contains(name.as_str())).collect()
}

/// A path of the repository, from a page and a link on it.
fn resolved(page: &str, link: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[test]
fn links_lead_somewhere() {
    let prose: BTreeMap<&str, _> = PAGES.iter().map(|(page, _)| (*page, parts(page).0)).collect();
    let on_the_site: BTreeMap<&str, _> =
        prose.iter().map(|(page, prose)| (*page, anchors(prose, anchor, &[]))).collect();
    let documented: BTreeMap<&str, _> =
        prose.iter().map(|(page, prose)| (*page, anchors(prose, anchor_in_documentation, RESERVED))).collect();
    let mut problems = Vec::new();
    for (page, in_documentation) in PAGES {
        for (line, name) in undefined(&prose[page]) {
            problems.push(format!("{page}:{line}: no line says where [{name}] leads"));
        }
        for (line, target) in targets(&prose[page]) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let (link, fragment) = target.split_once('#').map_or((&*target, None), |(link, name)| (link, Some(name)));
            let to = if link.is_empty() { (*page).to_owned() } else { resolved(page, link) };
            if !repository().join(&to).exists() {
                problems.push(format!("{page}:{line}: {target} leads to {to}, which is not there"));
            }
            let Some(fragment) = fragment else { continue };
            if !on_the_site.get(&*to).is_some_and(|anchors| anchors.contains(fragment)) {
                problems.push(format!("{page}:{line}: {target}: {to} has no heading of that name"));
            }
            if in_documentation.is_some() && link.is_empty() && !documented[page].contains(fragment) {
                problems.push(format!("{page}:{line}: {target}: the heading has another name in the documentation"));
            }
        }
    }
    problems.extend(from_the_manual(&documented));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Links that `src/manual.rs` redirects from files to pages of the documentation, and those between its pages.
fn from_the_manual(documented: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let page_of = |module: &str| PAGES.iter().find(|(_, name)| *name == Some(module)).map(|(page, _)| *page);
    let manual = read("src/manual.rs");
    let mut problems = Vec::new();
    let mut redirected = BTreeSet::new();
    for definition in manual.split("#[doc = \"[").skip(1) {
        let (name, rest) = definition.split_once("]: ").unwrap();
        let target = rest.split("\\n").next().unwrap();
        let (module, fragment) = target.split_once('#').map_or((target, None), |(module, name)| (module, Some(name)));
        redirected.insert(name);
        match page_of(module) {
            None => problems.push(format!("src/manual.rs: [{name}] leads to `{module}`, which is no page of it")),
            Some(page) if fragment.is_some_and(|fragment| !documented[page].contains(fragment)) => {
                problems.push(format!("src/manual.rs: [{name}]: {page} has no heading {fragment:?}"));
            }
            Some(_) => {}
        }
    }
    // On the documentation's site there are no files beside a page: a link to one needs a name that is redirected.
    for (page, _) in PAGES.iter().filter(|(_, name)| name.is_some()) {
        for (line, text) in parts(page).0 {
            let leads_to_a_file = |target: &str| !target.starts_with('#') && !target.starts_with("http");
            let inline: Vec<_> =
                targets(&[(line, text.clone())]).into_iter().filter(|(_, to)| leads_to_a_file(to)).collect();
            let name = text.strip_prefix('[').and_then(|text| text.split_once("]: ")).map(|(name, _)| name);
            if !inline.is_empty() && !name.is_some_and(|name| redirected.contains(name)) {
                problems
                    .push(format!("{page}:{line}: the documentation has no such file: {inline:?}; see src/manual.rs"));
            }
        }
    }
    problems
}

/// SQL that no other test runs stands alone, and works on tables as `migrate` makes them.
#[cfg(feature = "databases")]
#[tokio::test]
async fn sql_of_the_pages_runs() {
    let blocks = PAGES.iter().flat_map(|(page, _)| parts(page).1).filter(|block| block.language == "sql");
    let mut ran = 0;
    for block in blocks.filter(|block| !SQL.iter().any(|(begins, _)| block.text.starts_with(begins))) {
        let db = support::Postgres::new().await;
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(block.text.clone())).execute(&db.pool).await;
        done.unwrap_or_else(|error| panic!("{}: {error}", block.at()));
        ran += 1;
    }
    assert!(ran > 0, "no page has SQL of this kind any more: take this test out");
}
