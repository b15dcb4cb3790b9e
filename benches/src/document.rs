//! The page: tables between two marks, which every run writes anew. What stands outside of the marks is written by
//! people, and stays.

use crate::environment::Environment;
use crate::measured::{Measured, Reading, three_digits, time_of};
use crate::plot;
use crate::results::{FOLDER, Results, SubjectResult};
use crate::subjects::Subject;
use std::fmt::Write as _;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

pub const PAGE: &str = "performance.md";
const BEGIN: &str = "<!-- ./scripts/bench writes from here … -->";
const END: &str = "<!-- … to here -->";
/// Another page that has figures of one subject between the same marks, and that subject. It is written by people.
const OTHER: (&str, &str) = ("scaling.md", "sizes");
/// The page before anybody wrote on it.
const TEMPLATE: &str = include_str!("../performance.md");

/// Writes the page, its plots and the file of results. Subjects stand in the order of `subjects`.
pub fn write(folder: &Path, results: &Results, subjects: &[&Subject]) -> Result<()> {
    let path = folder.join(PAGE);
    let page = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => TEMPLATE.to_owned(),
        page => page?,
    };
    let page = with_generated(&page, &generated(results, subjects));
    let page = page.ok_or_else(|| Error::other(format!("{PAGE} lacks the line {BEGIN} or {END}")))?;
    fs::create_dir_all(folder.join(FOLDER))?;
    results.write(folder)?;
    for result in results.subjects.iter().filter(|result| !result.rows.is_empty()) {
        fs::write(folder.join(FOLDER).join(format!("{}.svg", result.name)), plot::of(&result.rows))?;
    }
    write_other(folder, results)?;
    fs::write(path, page)
}

/// Writes the figures of one subject into the other page, if it is in this folder.
fn write_other(folder: &Path, results: &Results) -> Result<()> {
    let (name, subject) = OTHER;
    let path = folder.join(name);
    let (true, Some(result)) = (path.exists(), results.get(subject)) else { return Ok(()) };
    let page = with_generated(&fs::read_to_string(&path)?, &figures_of(result));
    fs::write(path, page.ok_or_else(|| Error::other(format!("{name} lacks the line {BEGIN} or {END}")))?)
}

fn figures_of(result: &SubjectResult) -> String {
    let SubjectResult { environment, rows, notes, .. } = result;
    let known = |what: &str| environment.lines.iter().find(|(name, _)| name == what).map_or("", |(_, value)| value);
    let mut text = format!(
        "Measured on {} with PostgreSQL {}, on {} cores ({}), at commit {}{}.\n",
        environment.day,
        known("PostgreSQL"),
        known("cores"),
        known("processor"),
        environment.commit,
        environment.note.as_ref().map(|note| format!("; beside it: {note}")).unwrap_or_default()
    );
    notes.iter().for_each(|note| text += &format!("\n{note}\n"));
    text += "\nTimes, medians of rounds in which both take turns:\n\n| what | takes | beside | takes | ratio |\n\
        |---|---|---|---|---|\n";
    for row in rows {
        let [low, median, high] = [row.ratio.low, row.ratio.median, row.ratio.high].map(three_digits);
        let (took, beside) = (time_of(row.seconds), time_of(row.beside_seconds));
        text += &format!("| {} | {took} | {} | {beside} | {median} ({low} to {high}) |\n", row.workload, row.beside);
    }
    text
}

/// The page with this between the marks.
fn with_generated(page: &str, generated: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{generated}\n{END}{after}"))
}

fn generated(results: &Results, subjects: &[&Subject]) -> String {
    let known = || subjects.iter().filter_map(|subject| Some((*subject, results.get(subject.name)?)));
    let mut runs: Vec<&Environment> = Vec::new();
    for (_, result) in known() {
        match runs.iter_mut().find(|run| run.is_like(&result.environment)) {
            // The one that knows more of the servers.
            Some(run) if run.lines.len() < result.environment.lines.len() => *run = &result.environment,
            Some(_) => {}
            None => runs.push(&result.environment),
        }
    }
    let mut text = format!("{}\n\n", summary(results));
    for (subject, result) in known() {
        let (met, of) = count(std::slice::from_ref(result));
        let goals = if of == 0 { String::new() } else { format!(": {met} of {of}") };
        writeln!(text, "- [{}](#{}){goals}", subject.title, anchor(subject.title)).expect("a string");
    }
    for (number, run) in (1..).zip(&runs) {
        let number = if runs.len() > 1 { format!(" {number}") } else { String::new() };
        text += &section_of_run(&format!("Machine and versions{number}"), run);
    }
    for (subject, result) in known() {
        let run = runs.iter().position(|run| run.is_like(&result.environment)).map_or(0, |at| at + 1);
        let run = if runs.len() > 1 { format!(" With machine and versions {run}.") } else { String::new() };
        text += &section_of_subject(subject, result, &run);
    }
    text
}

fn section_of_run(heading: &str, run: &Environment) -> String {
    let mut text = format!("\n### {heading}\n\n| | |\n|---|---|\n");
    let mut line = |what: &str, value: &str| writeln!(text, "| {what} | {value} |").expect("a string");
    for (what, value) in &run.lines {
        line(what, value);
    }
    line("commit", &run.commit);
    line("amount of data", &format!("{:?}", run.scale).to_lowercase());
    if let Some(note) = &run.note {
        line("beside the run", note);
    }
    text
}

fn section_of_subject(subject: &Subject, result: &SubjectResult, run: &str) -> String {
    let SubjectResult { environment, rows, notes, texts, .. } = result;
    let rounds = rows.iter().map(|row| row.rounds).fold((usize::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
    let rounds = match rounds {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low} to {high}"),
    };
    let mut text = format!("\n### {}\n\n{}\n\n", subject.title, subject.about);
    let (before, after) = &environment.load;
    text += &format!("{} rounds on {}; load average {before} before, {after} after.{run}\n", rounds, environment.day);
    if !rows.is_empty() {
        text += "\n| what | takes | beside | takes | ratio | quartiles | goal | |\n|---|---|---|---|---|---|---|---|\n";
        rows.iter().for_each(|row| text += &line_of(row));
        text += &format!("\n![{}]({FOLDER}/{}.svg)\n", subject.title, subject.name);
    }
    notes.iter().for_each(|note| text += &format!("\n{note}\n"));
    for (what, shown) in texts {
        text += &format!("\n{what}\n\n```text\n{}\n```\n", shown.trim_end());
    }
    text
}

fn line_of(row: &Measured) -> String {
    let kind = if row.reading == Reading::Time { "× the time" } else { "× the speed" };
    let [low, median, high] = [row.ratio.low, row.ratio.median, row.ratio.high].map(three_digits);
    let verdict = match row.is_met() {
        Some(false) => "**missed**",
        _ => row.verdict(),
    };
    format!(
        "| {} | {} | {} | {} | {median} {kind} | {low} to {high} | {} | {verdict} |\n",
        row.workload,
        time_of(row.seconds),
        row.beside,
        time_of(row.beside_seconds),
        row.goal(),
    )
}

/// How many goals there are and how many are met, in a sentence.
pub fn summary(results: &Results) -> String {
    let (met, of) = count(&results.subjects);
    format!("Of {of} goals, {met} are met and {} are missed.", of - met)
}

fn count(results: &[SubjectResult]) -> (usize, usize) {
    let verdicts: Vec<bool> = results.iter().flat_map(|result| &result.rows).filter_map(Measured::is_met).collect();
    (verdicts.iter().filter(|met| **met).count(), verdicts.len())
}

/// The rows as they are printed during a run.
pub fn table_for_terminal(result: &SubjectResult) -> String {
    let mut text = format!("\n{}\n", result.name);
    let width = |of: fn(&Measured) -> &str| result.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (workload, beside) = (width(|row| &row.workload), width(|row| &row.beside));
    for row in &result.rows {
        let sign = if row.reading == Reading::Time { "× the time " } else { "× the speed" };
        text += &format!(
            "  {:<workload$} {:>8}   {:<beside$} {:>8}   {:>6} {sign} {:>7} {}\n",
            row.workload,
            time_of(row.seconds),
            row.beside,
            time_of(row.beside_seconds),
            three_digits(row.ratio.median),
            row.goal(),
            row.verdict(),
        );
    }
    result.notes.iter().for_each(|note| text += &format!("  {note}\n"));
    text.trim_end().to_owned()
}

/// The anchor of a heading, by the rules of the repository's site.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let written = TEMPLATE.replace("## What was tried\n", "## What was tried\n\nA table of nonces.\n");
        let once = with_generated(&written, "old figures").unwrap();
        let twice = with_generated(&once, "new figures").unwrap();
        assert!(twice.contains("A table of nonces.") && twice.contains("new figures"));
        assert!(!twice.contains("old figures"));
        assert_eq!(twice.split_once(BEGIN).unwrap().0, written.split_once(BEGIN).unwrap().0);
        assert_eq!(twice.split_once(END).unwrap().1, written.split_once(END).unwrap().1);
        assert_eq!(with_generated("a page without marks", "figures"), None);
    }
}
