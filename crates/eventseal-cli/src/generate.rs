//! `completions` and `man`: shell completions and the man page, made from the arguments.

use crate::args::Cli;
use crate::output::{Failure, Report};
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;

pub(crate) fn completions(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eventseal", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let json = json!({ "shell": shell.to_string(), "script": script });
    Report::verbatim(script, json)
}

pub(crate) fn man(directory: Option<&Path>) -> Result<Report, Failure> {
    let failed = |error: std::io::Error| Failure::failed("io", format!("the man page can't be written: {error}"));
    if let Some(directory) = directory {
        clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
        let text = format!("The man pages are in {}.", directory.display());
        return Ok(Report::new(text, json!({ "directory": directory })));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    let page = String::from_utf8_lossy(&page).into_owned();
    let json = json!({ "page": page });
    Ok(Report::verbatim(page, json))
}
