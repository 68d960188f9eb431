//! A small file system of its own, which a test can fill.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process;

/// A file system in memory, of so many MiB; gone with its value.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// One that the test's own user may write to.
    #[track_caller]
    pub fn mount(mib: u32) -> Self {
        let disk = Self(TempDir::new().unwrap());
        mount(disk.path(), mib);
        disk
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is left.
    pub fn fill(&self, name: &str) -> PathBuf {
        fill(&self.path().join(name))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        process::run(as_root("umount").arg("-l").arg(self.path()));
    }
}

/// Puts a file system in memory over a folder, for the folder's owner.
#[track_caller]
pub fn mount(folder: &Path, mib: u32) {
    let owner = fs::metadata(folder).unwrap().uid();
    let options = format!("size={mib}m,mode=0700,uid={owner}");
    process::succeed(as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder));
}

/// Takes all the room there is, for this file.
pub fn fill(path: &Path) -> PathBuf {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    path.to_owned()
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return process::command(program);
    }
    let mut command = process::command("sudo");
    command.args(["-n", program]);
    command
}
