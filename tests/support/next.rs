//! The binary, with a step of the schema that no release has.

#[path = "../../src/main.rs"]
mod next;

fn main() -> std::process::ExitCode {
    next::main()
}
