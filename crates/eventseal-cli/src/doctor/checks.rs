//! The results of the checks of `doctor`, and how they are shown.

use crate::output::{Exit, Report, causes, in_commands, shown};
use eventseal::Error;
use serde_json::json;
use std::fmt::Write as _;

/// The result of one check.
struct Check {
    name: &'static str,
    found: String,
    /// What to do. `None` if nothing is wrong.
    remedy: Option<String>,
}

#[derive(Default)]
pub(super) struct Checks(Vec<Check>);

impl Checks {
    pub(super) fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, found: found.into(), remedy: None });
    }

    pub(super) fn problem(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check { name, found: found.into(), remedy: Some(remedy.into()) });
    }

    pub(super) fn failed(&mut self, name: &'static str, error: &Error, remedy: impl Into<String>) {
        let found =
            std::iter::once(in_commands(&error.to_string())).chain(causes(error)).collect::<Vec<_>>().join(": ");
        self.problem(name, found, remedy);
    }

    pub(super) fn report(self) -> Report {
        let problems = self.0.iter().filter(|check| check.remedy.is_some()).count();
        let mut text = String::new();
        for check in &self.0 {
            let word = if check.remedy.is_none() { "ok" } else { "PROBLEM" };
            let _ = writeln!(text, "{word:<8} {:<12} {}", check.name, shown(&check.found));
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "{:<21} -> {}", "", shown(remedy));
            }
        }
        let _ = match problems {
            0 => writeln!(text, "\nAll is well."),
            1 => writeln!(text, "\n1 problem."),
            _ => writeln!(text, "\n{problems} problems."),
        };
        let checks: Vec<_> = self
            .0
            .iter()
            .map(|Check { name, found, remedy }| {
                json!({ "check": name, "ok": remedy.is_none(), "found": found, "remedy": remedy })
            })
            .collect();
        let report = Report::new(text, json!({ "ok": problems == 0, "checks": checks }));
        if problems == 0 { report } else { report.ending(Exit::Problems) }
    }
}
