//! Tests of keys on every database and with every KMS: who owns them, their life, erasures and the log of them, and
//! what is found through them. One module for each subject.
//!
//! They are apart from `stores` so that the compiler works on both at the same time.

mod aws_kms;
mod blind_index;
mod certificates;
mod events_of;
mod export;
mod holds;
mod key_store_mutants;
mod keys;
mod kinds;
mod kms;
mod listing;
mod promises;
mod rotation;
mod seal_index;
mod seal_index_mutants;
mod shred_log;
mod shred_many;
mod similar;
mod split;
mod values;
mod verify;
