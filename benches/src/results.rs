//! The file of results: what a run found out, so that another run can add to it and be compared with it.

use crate::environment::Environment;
use crate::measured::{Measured, Report};
use crate::subjects::Subject;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The folder beside the document, for the plots and this file.
pub const FOLDER: &str = "performance";
const FILE: &str = "results.json";

/// What is known of each subject, from the last run that measured it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub subjects: Vec<SubjectResult>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectResult {
    pub name: String,
    pub environment: Environment,
    pub rows: Vec<Measured>,
    pub notes: Vec<String>,
    pub texts: Vec<(String, String)>,
}

impl SubjectResult {
    pub fn of(subject: &Subject, report: Report, environment: Environment) -> Self {
        let Report { rows, notes, texts } = report;
        Self { name: subject.name.to_owned(), environment, rows, notes, texts }
    }
}

impl Results {
    /// Those of the document in this folder, or none.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            text => serde_json::from_slice(&text?)
                .map_err(|error| Error::other(format!("{}: {error}: delete it to begin anew", path.display()))),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(Self::path(folder), text)
    }

    pub fn get(&self, name: &str) -> Option<&SubjectResult> {
        self.subjects.iter().find(|subject| subject.name == name)
    }

    /// Replaces what was known of this subject.
    pub fn put(&mut self, result: SubjectResult) {
        match self.subjects.iter_mut().find(|subject| subject.name == result.name) {
            Some(known) => *known = result,
            None => self.subjects.push(result),
        }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join(FOLDER).join(FILE)
    }
}
