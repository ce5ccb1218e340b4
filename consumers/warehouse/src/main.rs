//! The warehouse as a program of its own.

fn main() -> std::process::ExitCode {
    warehouse::program().main()
}
