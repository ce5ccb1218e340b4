//! Loyalty as a program of its own.

fn main() -> std::process::ExitCode {
    loyalty::program().main()
}
