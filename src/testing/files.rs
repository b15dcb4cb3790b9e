//! JSON files that people read and commit: members in a fixed order, one final newline.

use crate::testing::GuardError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads a file; `None` if it does not exist.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, GuardError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(GuardError::file(path, format!("can't be read: {error}"))),
    };
    let problem = |error| GuardError::file(path, format!("is not a file of this guard: {error}; restore it from version control"));
    serde_json::from_slice(&text).map(Some).map_err(problem)
}

/// Writes a file, and the folders it is in.
pub(super) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), GuardError> {
    let failed = |error: std::io::Error| GuardError::file(path, format!("can't be written: {error}"));
    let text = serde_json::to_string_pretty(content).map_err(std::io::Error::from).map_err(failed)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text + "\n").map_err(failed)
}
