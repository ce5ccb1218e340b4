//! Catalogue as a program of its own.

fn main() -> std::process::ExitCode {
    catalogue::program().main()
}
