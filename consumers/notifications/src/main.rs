//! Notifications as a program of its own.

fn main() -> std::process::ExitCode {
    notifications::program().main()
}
