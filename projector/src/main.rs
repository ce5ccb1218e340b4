//! The `projector` binary.

fn main() -> std::process::ExitCode {
    projector::program().main()
}
