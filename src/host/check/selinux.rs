//! SELinux: whether `sshd` may use what its configuration names, as far as the policy's own list of labels says.

use std::path::Path;

use super::asker::Asker;
use super::finding::Finding;
use crate::folder::read::{self, Limit, Trust};
use crate::host::machine;
use crate::host::sshd::Effective;

const ABOUT: &str = "SELinux";
/// `1` where it enforces.
const ENFORCE: &str = "/sys/fs/selinux/enforce";

pub(super) fn look(effective: &Effective) -> Vec<Finding> {
    let enforced = read::raw(Path::new(ENFORCE), Trust::Anyone, Limit::FILE);
    if enforced.map_or(true, |text| text.trim_ascii() != b"1") {
        return Vec::new();
    }
    let asker = Asker::of(effective).map(|asker| asker.program.display().to_string());
    let keywords = ["trustedusercakeys", "revokedkeys", "hostcertificate"];
    let files = keywords.iter().flat_map(|keyword| effective.all(keyword)).map(str::to_owned);
    let mut all = Vec::new();
    for path in files.chain(asker) {
        match machine::asked("matchpathcon", ["-V", &path]) {
            Err(_) => {
                return vec![
                    Finding::warning(
                        ABOUT,
                        "it enforces, and `matchpathcon` is not there to say which labels are right",
                    )
                    .hint("install libselinux-utils; `ausearch -m avc -c sshd` shows what was denied"),
                ];
            }
            Ok(said) if said.is_good() => {}
            // It says which it is and which it should be, on stdout.
            Ok(said) => all.push(
                Finding::fault(ABOUT, said.stdout.trim().to_owned()).hint(format!("restorecon -v {path}")),
            ),
        }
    }
    if all.is_empty() {
        all.push(Finding::ok(ABOUT, "it enforces, and each file has the label that the policy has for it"));
    }
    all
}
