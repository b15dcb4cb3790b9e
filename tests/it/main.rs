//! Tests of the library through its public API that need no database, one module for each subject, and those that read
//! the repository. `support` has the worlds they share. Tests on databases are in `keys` and `stores`. What needs a
//! process of its own is beside these folders too: races, crashes, allocations, compile-fail tests.
//!
//! `scripts/test` also runs these without the feature `databases`, on AWS-LC, and with the features of serde_json that
//! keep spellings.

mod api;
mod changes;
mod copy_mutants;
mod dependencies;
mod derive;
mod evolution;
mod exactness;
mod facade;
mod guards;
mod guides;
mod layers;
mod measures;
mod numbers;
mod properties;
mod roundtrip;
mod schemas;
mod tamper;
mod typed;
mod unregistered;
mod vectors;
