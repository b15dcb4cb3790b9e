//! The commands in the pages that people read are those that there are, with arguments that there are.

use super::Cli;
use clap::Parser;
use clap::error::ErrorKind;
use std::fs;
use std::path::Path;

const PAGES: [&str; 9] = [
    "README.md",
    "SECURITY.md",
    "docs/operations.md",
    "docs/evolution.md",
    "docs/erasure.md",
    "docs/command-json.md",
    "docs/scaling.md",
    "crates/eventseal-cli/README.md",
    "crates/eventseal-testing/README.md",
];

/// Where a command stands: as a line to run, or in a sentence, which may leave out arguments.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Line,
    Sentence,
}

/// The commands of a page, each with its line and where it stands.
fn commands(page: &str) -> Vec<(usize, In, String)> {
    let mut commands = Vec::new();
    let mut language = None;
    for (index, line) in page.lines().enumerate() {
        if let Some(name) = line.trim_start().strip_prefix("```") {
            language = if language.is_some() { None } else { Some(name.to_owned()) };
            continue;
        }
        let (place, texts): (_, Vec<&str>) = match language.as_deref() {
            Some("sh") => (In::Line, vec![line]),
            Some("text") => (In::Line, line.strip_prefix("$ ").into_iter().collect()),
            Some(_) => continue,
            None => (In::Sentence, line.split('`').skip(1).step_by(2).collect()),
        };
        for text in texts.into_iter().flat_map(|text| text.split("&&")) {
            let text = text.trim();
            // "eventseal COMMAND" means any of them.
            if text.starts_with("eventseal ") && !text.contains(" COMMAND") {
                commands.push((index + 1, place, text.to_owned()));
            }
        }
    }
    commands
}

/// The words of a line of shell, up to a comment or a pipe. `…` stands for words that the reader knows.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for c in line.chars().chain([' ']) {
        match c {
            _ if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' if quote.is_none() => words.extend(word.take()),
            '#' | '|' | '>' | ';' if quote.is_none() && word.is_none() => break,
            c => word.get_or_insert_default().push(c),
        }
    }
    words
}

#[test]
fn commands_of_the_pages_are_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut problems, mut lines) = (Vec::new(), 0);
    for page in PAGES {
        for (line, place, command) in commands(&fs::read_to_string(root.join(page)).unwrap()) {
            lines += usize::from(place == In::Line);
            let Err(problem) = Cli::try_parse_from(words(&command)) else { continue };
            let kind = problem.kind();
            let left_out = matches!(kind, ErrorKind::MissingRequiredArgument | ErrorKind::InvalidValue);
            if kind != ErrorKind::DisplayHelp && !(left_out && place == In::Sentence) {
                problems.push(format!("{page}:{line}: {command}\n{problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(lines > 10, "only {lines} commands were found in the pages");
}
