//! Reads the sources of the library, for the tests that hold its layers and its facade: tokens, modules, items and
//! `use` trees. Knows as much of Rust as those sources need, and panics at what it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All modules of the library but those of its unit tests, by their paths: `""` is the root, `"keys::manager"` another.
#[derive(Debug)]
pub struct Library {
    pub modules: BTreeMap<String, Module>,
}

#[derive(Debug, Default)]
pub struct Module {
    /// Declared `pub`, and so is each module around it.
    pub public: bool,
    /// Not part of the documentation: `#[doc(hidden)]`, here or around it.
    pub hidden: bool,
    pub items: Vec<Item>,
    pub uses: Vec<Use>,
    /// Paths that begin with `crate::` or `super::`, in `use` lines and elsewhere, without the `crate`.
    pub paths: Vec<Vec<String>>,
}

#[derive(Debug)]
pub struct Item {
    pub public: bool,
    pub hidden: bool,
    pub kind: String,
    pub name: String,
}

/// One name that a `use` brings in.
#[derive(Debug)]
pub struct Use {
    pub public: bool,
    /// From the root, if it names something of the library. `*` at the end takes everything.
    pub path: Vec<String>,
    pub name: String,
}

impl Library {
    pub fn read() -> Self {
        let mut library = Self { modules: BTreeMap::new() };
        library.read_file(&repository().join("src/lib.rs"), &repository().join("src"), "", true, false);
        library
    }

    fn read_file(&mut self, file: &Path, folder: &Path, path: &str, public: bool, hidden: bool) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = tokens(&text);
        self.modules.insert(path.to_owned(), Module { public, hidden, ..Module::default() });
        self.read_module(&tokens, folder, path);
    }

    fn read_module(&mut self, tokens: &[Token], folder: &Path, path: &str) {
        let (public, hidden) = (self.modules[path].public, self.modules[path].hidden);
        let mut at = 0;
        while at < tokens.len() {
            let item = ItemTokens::read(tokens, &mut at);
            if item.only_for_tests {
                continue;
            }
            if item.kind == "mod" {
                let child = joined(path, &item.name);
                let (public, hidden) = (public && item.public, hidden || item.hidden);
                let inner = folder.join(&item.name);
                match item.body {
                    Some(body) => {
                        self.modules.insert(child.clone(), Module { public, hidden, ..Module::default() });
                        self.read_module(body, &inner, &child);
                    }
                    None => self.read_file(&inner.with_extension("rs"), &inner, &child, public, hidden),
                }
            } else if item.kind == "use" {
                let module = self.modules.get_mut(path).unwrap();
                for (way, name) in use_tree(item.all) {
                    module.uses.push(Use { public: item.public, path: from_root(path, &way), name });
                }
                module.paths.extend(paths_in(item.all, path));
            } else {
                let module = self.modules.get_mut(path).unwrap();
                module.paths.extend(paths_in(item.all, path));
                if item.kind == "macro_rules" && !item.exported {
                    module.items.extend(types_made_by(item.all));
                }
                if !item.name.is_empty() {
                    // An exported macro is an item of the root, wherever it stands.
                    let module = if item.exported { self.modules.get_mut("").unwrap() } else { module };
                    module.items.push(Item {
                        public: item.public || item.exported,
                        hidden: item.hidden,
                        kind: item.kind,
                        name: item.name,
                    });
                }
            }
        }
    }

    /// The module that defines what `path` names, past re-exports. `None`: nothing of the library, or an exported
    /// macro.
    pub fn home(&self, path: &[String]) -> Option<(String, Option<String>)> {
        let mut module = String::new();
        for (at, name) in path.iter().enumerate() {
            let child = joined(&module, name);
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let here = &self.modules[&module];
            if name == "*" || here.items.iter().any(|item| item.name == *name) {
                return Some((module, Some(name.clone())));
            }
            for used in here.uses.iter().filter(|used| used.name == *name && used.path != path[..=at]) {
                if let Some(home) = self.home(&used.path) {
                    return Some(home);
                }
            }
            for used in here.uses.iter().filter(|used| used.name == "*") {
                let way: Vec<_> = used.path.iter().filter(|name| *name != "*").chain([name]).cloned().collect();
                if let Some(home) = self.home(&way) {
                    return Some(home);
                }
            }
            return None;
        }
        Some((module, None))
    }
}

/// The public async methods of a type of the library, from its `impl` blocks without a trait.
pub fn async_methods(of: &str) -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    for file in rust_files(&repository().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for block in text.split("\nimpl").skip(1) {
            let block = block.split("\n}").next().unwrap_or_default();
            let head = block.split('{').next().unwrap_or_default();
            let is_of = head.contains(&format!(" {of}<")) && !head.contains(" for ");
            let found = block.split("\n    pub async fn ").skip(1).filter(|_| is_of);
            methods.extend(found.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
        }
    }
    methods
}

pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, mut files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    files.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
    files.extend(folders.iter().flat_map(|folder| rust_files(folder)));
    files
}

pub fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// `crate::a`, `super::a`, `self::a` and `a` (a child, or another crate), as seen from `module`.
fn from_root(module: &str, way: &[String]) -> Vec<String> {
    let mut base: Vec<String> = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut rest = way;
    while let [first, after @ ..] = rest {
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => (),
            _ => break,
        }
        rest = after;
    }
    base.extend_from_slice(rest);
    base
}

/// The public types that a macro of this module makes, if it spells their names.
fn types_made_by(tokens: &[Token]) -> Vec<Item> {
    let types = tokens.windows(3).filter(|words| {
        words[0].is("pub") && ["struct", "enum", "trait"].iter().any(|kind| words[1].is(kind)) && words[2].is_name()
    });
    types
        .map(|words| Item { public: true, hidden: false, kind: words[1].text.clone(), name: words[2].text.clone() })
        .collect()
}

/// Every path in these tokens that begins with `crate` or `super`. Macros' `$crate` is whoever calls them.
fn paths_in(tokens: &[Token], module: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let begins = tokens[at].is("crate") || tokens[at].is("super");
        let inside = at > 0 && (tokens[at - 1].is(":") || tokens[at - 1].is("$"));
        if begins && !inside && tokens.get(at + 1).is_some_and(|token| token.is(":")) {
            let mut end = at;
            for (way, _) in tree(tokens, &mut end, &[]) {
                found.push(from_root(module, &way));
            }
        }
    }
    found
}

fn use_tree(tokens: &[Token]) -> Vec<(Vec<String>, String)> {
    let mut at = tokens.iter().position(|token| token.is("use")).unwrap() + 1;
    while tokens[at].is(":") {
        at += 1;
    }
    tree(tokens, &mut at, &[])
}

/// The leaves of a `use` tree: where each leads, and the name that it has here.
fn tree(tokens: &[Token], at: &mut usize, before: &[String]) -> Vec<(Vec<String>, String)> {
    let mut way = before.to_vec();
    loop {
        match tokens.get(*at).map(|token| token.text.as_str()) {
            Some("{") => {
                *at += 1;
                let mut leaves = Vec::new();
                while !tokens[*at].is("}") {
                    leaves.extend(tree(tokens, at, &way));
                    if tokens[*at].is(",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return leaves;
            }
            Some(name) => {
                way.push(name.to_owned());
                *at += 1;
            }
            None => panic!("a `use` tree has no end: {way:?}"),
        }
        let is_path = |at: usize| {
            tokens.get(at).is_some_and(|token| token.is(":")) && tokens.get(at + 1).is_some_and(|token| token.is(":"))
        };
        let goes_on = |at: usize| tokens.get(at).is_some_and(|token| token.is_name() || token.is("{") || token.is("*"));
        if is_path(*at) && goes_on(*at + 2) {
            *at += 2;
            continue;
        }
        if way.last().is_some_and(|name| name == "self") {
            way.pop();
        }
        let mut name = way.last().cloned().unwrap_or_default();
        if tokens.get(*at).is_some_and(|token| token.is("as")) {
            name = tokens[*at + 1].text.clone();
            *at += 2;
        }
        return vec![(way, name)];
    }
}

/// One item of a module, from its attributes to its `;` or `}`.
struct ItemTokens<'a> {
    all: &'a [Token],
    /// Within the braces of a module.
    body: Option<&'a [Token]>,
    public: bool,
    hidden: bool,
    exported: bool,
    only_for_tests: bool,
    kind: String,
    name: String,
}

impl<'a> ItemTokens<'a> {
    #[expect(clippy::too_many_lines, reason = "one token after the other")]
    fn read(tokens: &'a [Token], at: &mut usize) -> Self {
        let start = *at;
        let (mut hidden, mut exported, mut only_for_tests) = (false, false, false);
        while tokens[*at].is("#") {
            let from = *at;
            *at += 1;
            if tokens[*at].is("!") {
                *at += 1;
            }
            skip_group(tokens, at);
            let attribute: String = tokens[from..*at].iter().map(|token| token.text.as_str()).collect();
            hidden |= attribute == "#[doc(hidden)]";
            exported |= attribute == "#[macro_export]";
            only_for_tests |=
                ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(doctest)]", "#[cfg(all(doctest", "#[cfg(any(doc"]
                    .iter()
                    .any(|start| attribute.starts_with(start));
        }
        if *at == tokens.len() {
            return Self {
                all: &[],
                body: None,
                public: false,
                hidden,
                exported,
                only_for_tests,
                kind: String::new(),
                name: String::new(),
            };
        }
        let mut public = false;
        if tokens[*at].is("pub") {
            *at += 1;
            public = !tokens[*at].is("(");
            if !public {
                skip_group(tokens, at);
            }
        }
        while ["async", "unsafe", "extern"].iter().any(|word| tokens[*at].is(word))
            || (tokens[*at].is("const") && tokens[*at + 1].is("fn"))
        {
            *at += 1;
        }
        let kind = tokens[*at].text.clone();
        let mut name = match kind.as_str() {
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "mod" | "union" => {
                tokens[*at + 1].text.clone()
            }
            "macro_rules" => tokens[*at + 2].text.clone(),
            _ => String::new(),
        };
        if name == "_" {
            name.clear();
        }
        // To the end: a `;`, or a `}` of an item that ends with one.
        let ends_with_brace = !["use", "const", "static", "type"].contains(&kind.as_str());
        let mut body = None;
        while *at < tokens.len() {
            if tokens[*at].is(";") {
                *at += 1;
                break;
            }
            let from = *at;
            if ["{", "(", "["].iter().any(|open| tokens[from].is(open)) {
                skip_group(tokens, at);
                if tokens[from].is("{") && ends_with_brace {
                    body = Some(&tokens[from + 1..*at - 1]);
                    break;
                }
            } else {
                *at += 1;
            }
        }
        Self { all: &tokens[start..*at], body, public, hidden, exported, only_for_tests, kind, name }
    }
}

/// From an opening bracket to behind the closing one.
fn skip_group(tokens: &[Token], at: &mut usize) {
    let mut depth = 0;
    loop {
        match tokens[*at].text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => (),
        }
        *at += 1;
        if depth == 0 {
            return;
        }
    }
}

#[derive(Debug)]
struct Token {
    text: String,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }

    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// Names, numbers and single marks. Comments go; the text of literals does too, and leaves a `"`.
fn tokens(text: &str) -> Vec<Token> {
    let text: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| text.get(at + i) == Some(&c));
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let from = at;
        if starts(at, "//") {
            while at < text.len() && text[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if text[at].is_whitespace() {
            at += 1;
        } else if let Some(hashes) = raw_string(&text, at) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += 1;
            while text[at] != '"' {
                at += 1;
            }
            at += 1;
            while !starts(at, &end) {
                at += 1;
            }
            at += end.len();
            tokens.push(Token { text: "\"".into() });
        } else if text[at] == '"' {
            at += 1;
            while text[at] != '"' {
                at += if text[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            tokens.push(Token { text: "\"".into() });
        } else if text[at] == '\'' && (text[at + 1] == '\\' || text.get(at + 2) == Some(&'\'')) {
            at += if text[at + 1] == '\\' { 3 } else { 2 };
            while text[at] != '\'' {
                at += 1;
            }
            at += 1;
            tokens.push(Token { text: "\"".into() });
        } else if text[at].is_alphanumeric() || text[at] == '_' {
            while at < text.len() && (text[at].is_alphanumeric() || text[at] == '_') {
                at += 1;
            }
            tokens.push(Token { text: text[from..at].iter().collect() });
        } else {
            at += 1;
            tokens.push(Token { text: text[from].to_string() });
        }
    }
    tokens
}

/// How many `#` a raw string that begins here has.
fn raw_string(text: &[char], at: usize) -> Option<usize> {
    let after = match (text.get(at), text.get(at + 1)) {
        (Some('r'), _) => at + 1,
        (Some('b'), Some('r')) => at + 2,
        _ => return None,
    };
    let in_a_name = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let hashes = text[after..].iter().take_while(|c| **c == '#').count();
    (!in_a_name && text.get(after + hashes) == Some(&'"')).then_some(hashes)
}
