//! Tests of events on every database: what is appended, stored, read, kept in snapshots and maintained, and what stores
//! must do for that. One module for each subject.
//!
//! They are apart from `keys` so that the compiler works on both at the same time.

mod conformance;
mod failures;
mod input;
mod invariants;
mod jsonb;
mod large_pages;
mod maintenance_backfill;
mod maintenance_census;
mod maintenance_copies;
mod maintenance_rewrite;
mod mutants;
mod normalize;
mod one_statement;
mod oracle;
mod owners;
mod postgres;
mod protected_metadata;
mod scaling;
mod snapshots;
mod sqlite;
mod stored;
mod streaming;
mod streams;
mod table_mutants;
mod telemetry;
