//! JSON as text: finds and replaces values without building a tree of the document, and keeps the spelling of every
//! number. This module knows nothing of events, keys or encryption.

pub(crate) mod document;
pub(crate) mod number;
pub(crate) mod pointer;
pub(crate) mod raw;
pub(crate) mod scan;
pub(crate) mod wanted;
