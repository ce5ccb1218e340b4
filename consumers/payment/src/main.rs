//! The `payment` binary.

fn main() -> std::process::ExitCode {
    payment::program().main()
}
