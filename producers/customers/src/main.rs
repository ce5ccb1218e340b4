//! The `customers` binary.

fn main() -> std::process::ExitCode {
    customers::program().main()
}
