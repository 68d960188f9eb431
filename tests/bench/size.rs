//! The size of the release binary, plain and compressed. See `README.md`.

#![allow(clippy::as_conversions, clippy::print_stdout, reason = "a benchmark; its figures are small")]

use std::process::{Command, Stdio};

const MACHINE_ID: &str = env!("CARGO_BIN_EXE_machine-id");

/// What compresses, best first; not every machine has all of them.
const TOOLS: &[(&str, &[&str])] = &[("xz", &["-9", "-c"]), ("zstd", &["-19", "-c"]), ("gzip", &["-9", "-c"])];

fn main() -> std::io::Result<()> {
    // `cargo bench` says `--bench`; any other build of the binary has another size.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("size: run with `cargo bench`");
        return Ok(());
    }
    let plain = std::fs::metadata(MACHINE_ID)?.len();
    let mut line = format!("size: {:.2} MiB", mebibytes(plain));
    for (tool, arguments) in TOOLS {
        if let Some(bytes) = compressed(tool, arguments) {
            let share = bytes as f64 / plain as f64;
            let command = format!("{tool} {}", arguments.join(" "));
            line.push_str(&format!(", {command} {:.2} MiB ({share:.2})", mebibytes(bytes)));
        }
    }
    println!("{line}");
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How many bytes the tool makes of the binary; nothing where it is not installed.
fn compressed(tool: &str, arguments: &[&str]) -> Option<u64> {
    let mut child = Command::new(tool).args(arguments).arg(MACHINE_ID).stdout(Stdio::piped()).spawn().ok()?;
    let bytes = std::io::copy(child.stdout.as_mut()?, &mut std::io::sink()).ok()?;
    child.wait().ok()?.success().then_some(bytes)
}
