//! The `catalogue` binary.

fn main() -> std::process::ExitCode {
    catalogue::program().main()
}
