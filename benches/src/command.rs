//! The command: its arguments, and a run from the first subject to the document.

use crate::bench::{Bench, Scale};
use crate::database;
use crate::document;
use crate::environment::Environment;
use crate::results::{Results, SubjectResult};
use crate::subjects::{SUBJECTS, Subject};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench", override_help = include_str!("../help.txt"))]
struct Arguments {
    #[arg(long)]
    only: Vec<String>,
    #[arg(long)]
    list: bool,
    #[arg(long, conflicts_with_all = ["only", "quick", "full"])]
    page: bool,
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    #[arg(long)]
    full: bool,
    #[arg(long)]
    note: Option<String>,
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command, with these subjects after the others.
pub fn run(rivals: &[Subject]) -> ExitCode {
    let arguments = Arguments::parse();
    let subjects: Vec<&Subject> = SUBJECTS.iter().chain(rivals).collect();
    if arguments.list {
        for subject in subjects {
            println!("{:<12} {}", subject.name, subject.title);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.only.iter().find(|name| subjects.iter().all(|subject| subject.name != **name)) {
        eprintln!("there is no subject `{unknown}`: --list names them");
        return ExitCode::from(2);
    }
    match measure(&arguments, &subjects) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the document can't be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments, subjects: &[&Subject]) -> std::io::Result<()> {
    let scale = match (arguments.quick, arguments.full) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Full,
        _ => Scale::Normal,
    };
    let temporary = tempfile::tempdir()?;
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None if scale == Scale::Quick => temporary.path().to_owned(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs"),
    };
    let mut results = Results::read(&folder)?;
    if arguments.page {
        return document::write(&folder, &results, subjects);
    }
    let bench = Bench::new(scale);
    // A smoke run does not wait for the disk.
    database::set_durable(scale != Scale::Quick);
    for subject in subjects {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == subject.name) {
            continue;
        }
        bench.begin(subject.name);
        let environment = Environment::before(scale, arguments.note.clone());
        let report = (subject.run)(&bench);
        let result = SubjectResult::of(subject, report, environment.after());
        bench.print(&document::table_for_terminal(&result));
        results.put(result);
        // After each subject, so that a run that is interrupted keeps what it has measured.
        document::write(&folder, &results, subjects)?;
    }
    bench.end();
    println!("\n{}", document::summary(&results));
    if folder == temporary.path() {
        println!("Everything ran once. These figures mean nothing.");
    } else {
        println!("written: {}", folder.join(document::PAGE).display());
    }
    Ok(())
}
