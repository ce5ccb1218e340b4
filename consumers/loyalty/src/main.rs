//! The `loyalty` binary.

fn main() -> std::process::ExitCode {
    loyalty::program().main()
}
