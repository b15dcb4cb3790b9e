//! The cost of what erasures need, on PostgreSQL. Each row compares two ways to do the same work, which take turns
//! within one run, so look at the ratios.
//!
//! `EVENTSEAL_DURABLE=on cargo bench --bench erasure --features postgres`
//!
//! A name behind `--` runs the rows of that name only: `-- append`. The variable `EVENTS` sets how many events the
//! large log has, a million by default, and `KEYS` how many keys the large key table has. It runs on a temporary
//! cluster, or on `DATABASE_URL`. With `EVENTSEAL_DURABLE=on` the cluster waits for the disk at each commit, as
//! PostgreSQL does by default.
//!
//! To add rows, write a module with a function that takes the [`Farm`], and name it in `main`.

#![allow(missing_docs, reason = "a benchmark")]

#[path = "erasure/certificate.rs"]
mod certificate;
#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
#[path = "../tests/support/cluster.rs"]
mod cluster;
mod common;
#[path = "erasure/farm.rs"]
mod farm;
#[path = "erasure/index.rs"]
mod index;
#[path = "erasure/shred.rs"]
mod shred;

use farm::Farm;

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("append") {
        let farm = Farm::new("append").await;
        index::append(&farm).await;
        farm.close().await;
    }
    if is_wanted("events_of") {
        let farm = Farm::new("events_of").await;
        index::events_of(&farm).await;
        farm.close().await;
    }
    if is_wanted("shred") {
        shred::shred().await;
    }
    if is_wanted("certificate") {
        let farm = Farm::new("certificate").await;
        certificate::certificate(&farm).await;
        farm.close().await;
    }
}
