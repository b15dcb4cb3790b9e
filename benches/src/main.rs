//! The benchmarks without rivals, as the tests run them.

fn main() -> std::process::ExitCode {
    eventseal_bench::run(&[])
}
