//! The `dacapo` command. Its code is in the library beside it, so that tests can call it.

fn main() {
    dacapo::process::main();
}
