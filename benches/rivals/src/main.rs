//! The benchmarks with rivals: crates that others wrote for the same purpose, and the library on its other backend.

mod backends;
mod cqrs_es_crypto;

fn main() -> std::process::ExitCode {
    eventseal_bench::run(&[backends::SUBJECT, cqrs_es_crypto::SUBJECT])
}
