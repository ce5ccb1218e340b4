//! Customers as a program of its own.

fn main() -> std::process::ExitCode {
    customers::program().main()
}
