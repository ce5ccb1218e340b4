//! The projector as a process of its own.

fn main() -> std::process::ExitCode {
    projector::program().main()
}
