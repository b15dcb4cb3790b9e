//! The blocks of code on the page, which other tests run as they are written there.

use std::fs;
use std::path::Path;

pub(super) fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scaling.md");
    fs::read_to_string(path).unwrap()
}

/// The block of SQL that begins so.
pub(super) fn sql(begins: &str) -> String {
    let page = page();
    let mut blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.starts_with(begins)).unwrap_or_else(|| panic!("no SQL begins with {begins}")).to_owned()
}

/// Its statements one by one, for those that refuse to be in a transaction with others.
pub(super) fn statements(begins: &str) -> Vec<String> {
    let sql = sql(begins);
    let code: String = sql.lines().map(|line| line.split("--").next().unwrap().to_owned() + "\n").collect();
    code.split(';').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

/// A function of the page must be the one that a test runs.
pub(super) fn has(function: &str, source: &str) {
    let text = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let begin = source.find(function).unwrap_or_else(|| panic!("the test has no {function}"));
    let code = &source[begin..];
    let code = &code[..code.find("\n}\n").unwrap() + 3];
    assert!(text(&page()).contains(&text(code)), "the page has another {function}");
}
