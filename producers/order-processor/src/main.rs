//! The `order-processor` binary.

fn main() -> std::process::ExitCode {
    order_processor::program().main()
}
