//! The `notifications` binary.

fn main() -> std::process::ExitCode {
    notifications::program().main()
}
