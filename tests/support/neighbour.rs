//! The next version of machine-id, as it may be: this tree with one more step
//! of the schema (`src/authority/store/next_schema.rs`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::MACHINE_ID;
use super::repository;

/// Its binary. Cargo makes it beside the one under test, with the same dependencies, unless `tests/run` just has.
#[track_caller]
pub fn next_version() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--quiet", "--bin", "machine-id-next", "--features", "next-schema"]);
        // What Cargo tells a test of its crate, dependencies' build scripts would take for a change.
        let of_crate =
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
        for (name, _) in std::env::vars_os() {
            if of_crate.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                cargo.env_remove(name);
            }
        }
        cargo.arg("--manifest-path").arg(repository("Cargo.toml"));
        let made = cargo.output().expect("cargo");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Path::new(MACHINE_ID).with_file_name("machine-id-next")
    })
}
