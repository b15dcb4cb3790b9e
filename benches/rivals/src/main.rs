//! The benchmarks with rivals: crates that others wrote for the same purpose.

mod cqrs_es_crypto;

fn main() -> std::process::ExitCode {
    eventseal_bench::run(&[cqrs_es_crypto::SUBJECT])
}
