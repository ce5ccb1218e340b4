//! The `warehouse` binary.

fn main() -> std::process::ExitCode {
    warehouse::program().main()
}
