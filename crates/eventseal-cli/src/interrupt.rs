//! Handles Ctrl-C and a supervisor's SIGTERM. The command says what was done and is kept. It ends with exit code 128
//! plus the number of the signal, as shells expect.
//!
//! Nothing has to be cleaned up: the database rolls back what was not committed when the connection ends.

use std::sync::{Mutex, PoisonError};

struct Work {
    /// What the command has changed so far, as a sentence.
    kept: String,
    /// The work is done, and its result is being printed.
    is_done: bool,
}

static WORK: Mutex<Work> = Mutex::new(Work { kept: String::new(), is_done: false });

const NOTHING: &str = "nothing was changed";
const UNCERTAIN: &str = "it is not certain whether this was done: eventseal keys show, or eventseal status, tells; \
    running it again does no harm";

fn with<T>(change: impl FnOnce(&mut Work) -> T) -> T {
    change(&mut WORK.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Sets the sentence that says what was done and is kept.
pub(crate) fn kept(done: impl Into<String>) {
    with(|work| work.kept = done.into());
}

/// Says that a commit begins: if the command is interrupted now, it does not know the outcome.
pub(crate) fn uncertain() {
    kept(UNCERTAIN);
}

/// Says that the work is done and is about to be reported. From now on a signal ends the process as usual.
pub(crate) fn done() {
    with(|work| work.is_done = true);
}

#[cfg(unix)]
pub(crate) fn listen(json: bool) -> Result<(), crate::output::Failure> {
    use crate::output::{Exit, Failure};
    use signal_hook::consts::{SIGINT, SIGTERM};

    let failed = |error: std::io::Error| Failure::failed("runtime", format!("signals can't be listened for: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            with(|work| {
                if work.is_done {
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                    return;
                }
                let exit = if signal == SIGINT { Exit::Interrupted } else { Exit::Terminated };
                let kept = if work.kept.is_empty() { NOTHING } else { &work.kept };
                Failure::Interrupted { exit, problem: format!("interrupted: {kept}") }.print(json);
                std::process::exit(exit as i32);
            });
        }
    });
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn listen(_: bool) -> Result<(), crate::output::Failure> {
    Ok(())
}
