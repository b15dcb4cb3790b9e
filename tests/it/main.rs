//! Tests of the library through its public API, one module for each subject. `support` has the databases and worlds
//! they share. What needs a process of its own is beside this folder: races, crashes, allocations, compile-fail tests.
//!
//! Without the feature `databases` this is what reads or writes JSON and needs no database: `scripts/test` runs that
//! with the features of serde_json that keep spellings.

mod api;
#[cfg(feature = "databases")]
mod aws_kms;
#[cfg(feature = "databases")]
mod blind_index;
#[cfg(feature = "databases")]
mod certificates;
mod changes;
#[cfg(feature = "databases")]
mod conformance;
mod copy_mutants;
mod dependencies;
mod derive;
#[cfg(feature = "databases")]
mod events_of;
mod evolution;
mod exactness;
#[cfg(feature = "databases")]
mod export;
mod facade;
#[cfg(feature = "databases")]
mod failures;
mod guards;
mod guides;
#[cfg(feature = "databases")]
mod holds;
#[cfg(feature = "databases")]
mod input;
#[cfg(feature = "databases")]
mod invariants;
#[cfg(feature = "databases")]
mod jsonb;
#[cfg(feature = "databases")]
mod key_store_mutants;
#[cfg(feature = "databases")]
mod keys;
#[cfg(feature = "databases")]
mod kinds;
#[cfg(feature = "databases")]
mod kms;
mod layers;
#[cfg(feature = "databases")]
mod listing;
#[cfg(feature = "databases")]
mod maintenance_backfill;
#[cfg(feature = "databases")]
mod maintenance_census;
#[cfg(feature = "databases")]
mod maintenance_copies;
#[cfg(feature = "databases")]
mod maintenance_rewrite;
mod measures;
#[cfg(feature = "databases")]
mod mutants;
#[cfg(feature = "databases")]
mod normalize;
mod numbers;
#[cfg(feature = "databases")]
mod one_statement;
#[cfg(feature = "databases")]
mod oracle;
#[cfg(feature = "databases")]
mod owners;
#[cfg(feature = "databases")]
mod postgres;
#[cfg(feature = "databases")]
mod promises;
mod properties;
#[cfg(feature = "databases")]
mod protected_metadata;
#[cfg(feature = "databases")]
mod rotation;
mod roundtrip;
mod schemas;
#[cfg(feature = "databases")]
mod seal_index;
#[cfg(feature = "databases")]
mod seal_index_mutants;
#[cfg(feature = "databases")]
mod shred_log;
#[cfg(feature = "databases")]
mod shred_many;
#[cfg(feature = "databases")]
mod similar;
#[cfg(feature = "databases")]
mod snapshots;
mod sources;
#[cfg(feature = "databases")]
mod split;
#[cfg(feature = "databases")]
mod sqlite;
#[cfg(feature = "databases")]
mod stored;
#[cfg(feature = "databases")]
mod streams;
#[cfg(feature = "databases")]
mod table_mutants;
#[cfg(feature = "databases")]
mod tamper;
#[cfg(feature = "databases")]
mod telemetry;
mod typed;
mod unregistered;
#[cfg(feature = "databases")]
mod values;
mod vectors;
#[cfg(feature = "databases")]
mod verify;
