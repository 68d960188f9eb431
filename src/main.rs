//! The binary: parse, dispatch, print the error, exit code.

use std::alloc::System;
use std::process::ExitCode;

use machine_id::cli::Cli;
use machine_id::environment::Environment;
use machine_id::{commands, net, secret, terminal};
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: a library's buffer that held a token is nobody's to find.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

pub(crate) fn main() -> ExitCode {
    let env = Environment::of_process();
    if let Some(code) = commands::become_command(&env) {
        return code;
    }
    // Whatever the command: nearly every one of them reads a key or a token.
    secret::keep_in_memory();
    let cli = match Cli::of(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        // Help goes to stdout with 0, a usage error to stderr with 2.
        Err(error) => error.exit(),
    };
    std::panic::set_hook(Box::new(|panic| terminal::log(&format!("internal error: {panic}"))));
    net::install_crypto();
    match commands::run(cli, &env) {
        Ok(code) => code,
        Err(error) => {
            terminal::report(&error, &env);
            error.exit_code()
        }
    }
}
