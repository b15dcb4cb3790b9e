//! Reads a list of scopes: JSON lines.

use super::many::tell_of_terminal;
use crate::output::{Failure, shown};
use eventseal::KeyScope;
use eventseal::keys::ShredRequest;
use serde::Deserialize;
use std::io::Read as _;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: String,
    id: String,
    reason: Option<String>,
}

/// Reads the whole list of what is to be shredded, and checks every line. `reason` is that of lines without one; empty
/// if there is none.
pub(super) fn read(file: &Path, reason: &str) -> Result<Vec<ShredRequest>, Failure> {
    read_for(file, reason, "nothing was shredded")
}

/// Reads a list of scopes, which may have reasons.
pub(crate) fn scopes(file: &Path) -> Result<Vec<KeyScope>, Failure> {
    let requests = read_for(file, "none", "nothing was looked at")?;
    Ok(requests.into_iter().map(|request| request.scope).collect())
}

/// The same for a call that fails with these words.
fn read_for(file: &Path, reason: &str, not_done: &str) -> Result<Vec<ShredRequest>, Failure> {
    tell_of_terminal(file)?;
    let name = if file == Path::new("-") { "standard input".to_owned() } else { shown(&file.to_string_lossy()) };
    let mut bytes = Vec::new();
    let read = match file {
        file if file == Path::new("-") => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        file => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)).map(drop),
    };
    read.map_err(|error| Failure::failed("io", format!("{name} can't be read: {error}")))?;
    let requests = parse(&bytes, reason)
        .map_err(|(line, problem)| Failure::Usage(format!("line {line} of {name} {problem}; {not_done}")))?;
    if requests.is_empty() {
        return Err(Failure::Usage(format!("{name} names no scope: write a line {{\"kind\": …, \"id\": …}} for each")));
    }
    Ok(requests)
}

/// The requests, or the number of the first line that is none, and why.
fn parse(bytes: &[u8], reason: &str) -> Result<Vec<ShredRequest>, (usize, String)> {
    let mut requests = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Line { kind, id, reason: own } = serde_json::from_slice(line)
            .map_err(|error| (number, format!("is not as it should be: {}", said(&error))))?;
        let reason = own.unwrap_or_else(|| reason.to_owned());
        for (what, text) in [("kind", &kind), ("id", &id), ("reason", &reason)] {
            let problem = match text.len() {
                0 if what == "reason" => "has no reason: add one, or pass --reason for all of them",
                0 => "is empty",
                length if length > 1_024 => "is longer than 1,024 bytes",
                _ if text.contains('\0') => "holds a NUL character",
                _ => continue,
            };
            let problem = if what == "reason" && text.is_empty() {
                problem.to_owned()
            } else {
                format!("has a {what} that {problem}")
            };
            return Err((number, problem));
        }
        if kind.starts_with('$') {
            return Err((number, "names a scope of eventseal itself, which seals no value".to_owned()));
        }
        requests.push(ShredRequest { scope: KeyScope::new(kind, id), reason });
    }
    Ok(requests)
}

/// serde_json counts lines from 1 in each of them, which would confuse.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line 1 ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_wrong_is_named_by_its_number() {
        let good = "{\"kind\":\"Customer\",\"id\":\"1\"}\r\n \n{\"id\":\"2\",\"kind\":\"Guest\",\"reason\":\"own\"}";
        let requests = parse(good.as_bytes(), "common").unwrap();
        let read: Vec<_> = requests.iter().map(|request| (request.scope.to_string(), &request.reason[..])).collect();
        assert_eq!(read, [("Customer 1".to_owned(), "common"), ("Guest 2".to_owned(), "own")]);
        assert_eq!(parse(b"", "").unwrap(), []);
        for (line, expected) in [
            (r#"{"kind":"Customer"}"#, "missing field `id`"),
            (r#"{"kind":"Customer","id":7}"#, "expected a string"),
            (r#"{"kind":"Customer","id":"7","reasn":"r"}"#, "unknown field `reasn`"),
            (r#"{"kind":"Customer","id":"7","id":"8"}"#, "duplicate field `id`"),
            (r#"{"kind":"Customer","id":"7"} {"#, "trailing characters"),
            (r#"["Customer"]"#, "invalid"),
            ("Customer 7", "expected value"),
            (r#"{"kind":"","id":"7"}"#, "has a kind that is empty"),
            (r#"{"kind":"Customer","id":"a\u0000"}"#, "has a id that holds a NUL"),
            (r#"{"kind":"$eventseal","id":"integrity"}"#, "of eventseal itself"),
        ] {
            let (number, problem) = parse(format!("{good}\n{line}\n").as_bytes(), "common").unwrap_err();
            assert!(number == 4 && problem.contains(expected), "{line}: {number} {problem}");
        }
        assert_eq!(parse(good.as_bytes(), "").unwrap_err().0, 1, "no reason");
        assert_eq!(parse(b"\xff", "r").unwrap_err().0, 1);
        let long = format!(r#"{{"kind":"Customer","id":"{}"}}"#, "a".repeat(1_025));
        assert!(parse(long.as_bytes(), "r").unwrap_err().1.contains("longer"));
    }
}
