//! The payment as a program of its own.

fn main() -> std::process::ExitCode {
    payment::program().main()
}
