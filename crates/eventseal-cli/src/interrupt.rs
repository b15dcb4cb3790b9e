//! Ctrl-C, and a supervisor's SIGTERM: the command says what was done and is kept, and ends with 128 and the signal's
//! number, as shells expect it.
//!
//! Nothing has to be cleaned up. What was not committed is rolled back by the database, which sees the connection end.

use std::sync::{Mutex, PoisonError};

struct Work {
    /// What the command has changed so far, as a sentence.
    kept: String,
    /// The result is being printed.
    is_done: bool,
}

static WORK: Mutex<Work> = Mutex::new(Work { kept: String::new(), is_done: false });

const NOTHING: &str = "nothing was changed";
const UNCERTAIN: &str = "it is not certain whether this was done: eventseal keys show, or eventseal status, tells; \
    running it again does no harm";

fn with<T>(change: impl FnOnce(&mut Work) -> T) -> T {
    change(&mut WORK.lock().unwrap_or_else(PoisonError::into_inner))
}

/// From now on this is what was done, and is kept.
pub(crate) fn kept(done: impl Into<String>) {
    with(|work| work.kept = done.into());
}

/// What begins now is committed before the command hears of it.
pub(crate) fn uncertain() {
    kept(UNCERTAIN);
}

/// The work is done, and about to be reported: a signal ends the command as it ends any other.
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
