//! Reads and writes the files of the guards: JSON that people read and commit.

use crate::error::GuardError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Whether a guard may write its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is written.
    Check,
    /// New entries are written.
    Record,
    /// New and changed entries are written.
    Accept,
}

impl Mode {
    /// The mode that an environment variable asks for. It is not a setting in code, so that no CI writes files by
    /// accident.
    pub(crate) fn from_env(variable: &'static str) -> Result<Self, GuardError> {
        match std::env::var_os(variable) {
            None => Ok(Self::Check),
            Some(value) if value.is_empty() => Ok(Self::Check),
            Some(value) if value == "record" => Ok(Self::Record),
            Some(value) if value == "accept" => Ok(Self::Accept),
            Some(value) => Err(GuardError::Variable { variable, value: value.to_string_lossy().into_owned() }),
        }
    }
}

/// Reads a file. Returns `None` if it does not exist.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, GuardError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(GuardError::file(path, format!("can't be read: {error}"))),
    };
    let problem = |error| {
        GuardError::file(path, format!("is not a file of this guard: {error}; restore it from version control"))
    };
    serde_json::from_slice(&text).map(Some).map_err(problem)
}

/// Writes a file with one final newline. Creates the folders that are missing.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), GuardError> {
    let failed = |error: std::io::Error| GuardError::file(path, format!("can't be written: {error}"));
    let text = serde_json::to_string_pretty(content).map_err(std::io::Error::from).map_err(failed)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Written beside it and renamed, because another test may read the file at this moment.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    std::fs::write(&beside, text + "\n").and_then(|()| std::fs::rename(&beside, path)).map_err(failed)
}
