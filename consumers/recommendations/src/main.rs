//! The `recommendations` binary.

fn main() -> std::process::ExitCode {
    recommendations::program().main()
}
