//! How long files and lines may be. Clippy sees to functions (`too-many-lines-threshold` in clippy.toml).

use std::fs;
use std::path::{Path, PathBuf};
use support::sources::repository;

const LINES: usize = 500;
const COLUMNS: usize = 120;

/// Every source of the workspace, but for what was built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The words of a file's first paragraph, which says what the file is for.
fn first_paragraph(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn files_and_lines_are_short() {
    let mut files = Vec::new();
    sources(&repository(), &mut files);
    assert!(files.len() > 100, "the sources were found: {}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(repository()).unwrap().display();
        let lines = text.lines().count();
        if lines > LINES && !first_paragraph(&text).contains("long because") {
            wrong.push(format!(
                "{name} has {lines} lines: split it, or say in its first paragraph that it is long because …"
            ));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            // JSON in a raw string is broken at other places than code, or nowhere.
            if columns > COLUMNS && !line.contains("r#\"") {
                wrong.push(format!("{name}:{number} has {columns} columns"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
