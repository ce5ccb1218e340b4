//! The recommendations as a program of its own.

fn main() -> std::process::ExitCode {
    recommendations::program().main()
}
