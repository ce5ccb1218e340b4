//! The order-processor as a program of its own.

fn main() -> std::process::ExitCode {
    order_processor::program().main()
}
