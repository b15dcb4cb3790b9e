//! What is measured.

mod append;
mod certificate;
mod first;
mod index;
mod keys;
mod page;
mod read;
mod replay;
mod rewrap;
mod seal;
mod sealer;
mod shred;
mod sizes;
mod sqlite;
mod telemetry;
mod upcast;
mod value;

use crate::bench::Bench;
use crate::measured::Report;

/// A subject: a table of the document.
pub struct Subject {
    /// The name for `--only`, and of the plot's file.
    pub name: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What is done, beside what, in Markdown.
    pub about: &'static str,
    pub run: fn(&Bench) -> Report,
}

/// All subjects but the rivals, in the order in which the document has them.
pub const SUBJECTS: [Subject; 17] = [
    seal::SUBJECT,
    sealer::SUBJECT,
    page::SUBJECT,
    telemetry::SUBJECT,
    value::SUBJECT,
    append::SUBJECT,
    sqlite::SUBJECT,
    read::SUBJECT,
    replay::SUBJECT,
    first::SUBJECT,
    shred::SUBJECT,
    keys::SUBJECT,
    upcast::SUBJECT,
    rewrap::SUBJECT,
    index::SUBJECT,
    certificate::SUBJECT,
    sizes::SUBJECT,
];
