//! The settings of keys are given before the keys are used: what uses them has no setters.
use eventseal::keys::KeyManager;
use eventseal::memory::MemoryTx;
use std::time::Duration;

fn loosen(keys: KeyManager<MemoryTx>) -> KeyManager<MemoryTx> {
    keys.reads_may_lag(Duration::from_secs(3_600))
}

fn main() {}
