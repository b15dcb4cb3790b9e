//! JSON text: where things stand in it, found and replaced without building a tree, and every number as it is spelled.
//! Knows nothing of events, keys or encryption.

pub(crate) mod document;
pub(crate) mod number;
pub(crate) mod pointer;
pub(crate) mod raw;
pub(crate) mod scan;
pub(crate) mod wanted;
