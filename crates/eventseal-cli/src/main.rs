//! The `eventseal` command, with which operators manage the keys of an event store.
//!
//! It uses the public API of the library, and has no logic of its own about keys. Each command turns its arguments into
//! a [`Report`] or a [`Failure`]. This file prints it and ends the process.

mod actor;
mod args;
mod census;
mod certificate;
mod connect;
mod copies;
mod doctor;
mod doubts;
mod export;
mod generate;
mod holds;
mod interrupt;
mod keks;
mod list;
mod master_key;
mod migrate;
mod output;
mod pooler;
mod registered;
mod rewrap;
mod schedules;
mod scopes;
mod seals;
mod shred;
mod shred_log;
mod status;
mod sweep;
mod verify;
mod when;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use output::{Exit, Failure, Report};
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(problem) => return refuse(&problem),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(problem) => return refuse(&problem),
    };
    let json = cli.json;
    let done = args::check_secrets(&matches).and_then(|()| {
        interrupt::listen(json)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed("runtime", format!("no runtime: {error}")))?;
        runtime.block_on(run(cli))
    });
    interrupt::done();
    match done {
        Ok(report) => report.print(json),
        Err(failure) => failure.print(json),
    }
}

async fn run(cli: Cli) -> Result<Report, Failure> {
    match cli.command {
        Command::Migrate(args) => migrate::migrate(args).await,
        Command::Prepare(args) => keks::prepare(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Census(args) => census::census(args, cli.json).await,
        Command::EventsOf(args) => seals::events_of(args, cli.json).await,
        Command::IndexSeals(args) => seals::index(args, cli.json).await,
        Command::Verify(args) => verify::verify(args, cli.json).await,
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Keys(args::Keys::Show(args)) => scopes::show(args, cli.json).await,
        Command::Keys(args::Keys::List(args)) => list::list(args).await,
        Command::Export(args) => export::export(args, cli.json).await,
        Command::Shred(args) => shred::shred(args, cli.json).await,
        Command::Certificate(args) => certificate::certificate(args, cli.json).await,
        Command::Hold(args) => holds::hold(args, cli.json).await,
        Command::Release(args) => holds::release(args, cli.json).await,
        Command::Holds(args) => holds::holds(args).await,
        Command::ScheduleShred(args) => schedules::schedule_shred(args, cli.json).await,
        Command::CancelShred(args) => schedules::cancel_shred(args, cli.json).await,
        Command::Schedules(args) => schedules::schedules(args).await,
        Command::Sweep(args) => sweep::sweep(args, cli.json).await,
        Command::ShredLog(args::ShredLog::Export(args)) => shred_log::export(args, cli.json).await,
        Command::ShredLog(args::ShredLog::Verify(args)) => shred_log::verify(args, cli.json).await,
        Command::ShredLog(args::ShredLog::Replay(args)) => shred_log::replay(args, cli.json).await,
        Command::ShredLog(args::ShredLog::Adopt(args)) => shred_log::adopt(args, cli.json).await,
        Command::Reopen(args) => scopes::reopen(args, cli.json).await,
        Command::Disable(args) => scopes::disable(args, cli.json).await,
        Command::Enable(args) => scopes::enable(args, cli.json).await,
        Command::RotateDataKey(args) => scopes::rotate_data_key(args, cli.json).await,
        Command::RotateKek(args) => keks::rotate(args, cli.json).await,
        Command::Rewrap(args) => rewrap::rewrap(args, cli.json).await,
        Command::RetireKek(args) => keks::retire(args, cli.json).await,
        Command::MoveMasterKey(args) => keks::move_master_key(args, cli.json).await,
        Command::Completions { shell } => Ok(generate::completions(shell)),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}

/// Prints what clap returned instead of arguments: the help, the version, or an error.
fn refuse(problem: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    // clap's error repeats the argument, which may hold a password.
    if problem.use_stderr() && std::env::args_os().any(|argument| argument.to_str().is_some_and(args::has_password)) {
        let problem = "the arguments can't be read, and are not repeated, since one has a password in it: set \
            DATABASE_URL instead";
        return Failure::Usage(problem.into()).print(json);
    }
    if problem.use_stderr() && json {
        return Failure::Usage(problem.render().to_string().trim_end().to_owned()).print(true);
    }
    let failed_to_print = problem.print().is_err();
    if problem.use_stderr() || failed_to_print { Exit::Usage.into() } else { Exit::Done.into() }
}
