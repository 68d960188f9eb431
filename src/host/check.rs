//! `host check`: whether certificates get in here, and if one does not, why, by the configuration that `sshd` goes by. It
//! changes nothing, and asks nobody but `sshd`.

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::folder::trust::me;
use crate::host::sshd::{self, Effective};

mod asker;
mod finding;
mod here;
mod host_certificate;
mod login;
mod selinux;

pub use finding::{Finding, Verdict};
pub use login::Login;

/// Looks at the host, and at a login, if there is one to look at.
///
/// # Errors
/// `Kind::Usage` where this is not root, who alone can ask `sshd`.
pub fn run(login: Option<&Login>) -> Result<Vec<Finding>> {
    if me() != 0 {
        return Err(Error::usage("this takes root: nobody else can ask sshd").hint("run it with sudo"));
    }
    let now = Clock::system().now();
    let effective =
        sshd::test(None).and_then(|()| Effective::of(None, login.map(|login| login.user.as_str())));
    let effective = match effective {
        Ok(effective) => effective,
        Err(error) => {
            let hint = error.hints().first().cloned().unwrap_or_default();
            return Ok(vec![Finding::fault("sshd", error.to_string()).hint(hint)]);
        }
    };
    let mut all = vec![Finding::ok("sshd", "it takes its configuration")];
    all.extend(here::look(&effective, now));
    all.extend(host_certificate::look(&effective, now));
    all.extend(selinux::look(&effective));
    if let Some(login) = login {
        all.extend(login::look(login, &effective, now));
    }
    Ok(all)
}

/// The exit code's kind; none where it would work.
pub fn kind(findings: &[Finding]) -> Option<Kind> {
    match findings.iter().map(|finding| finding.verdict).max()? {
        Verdict::Ok | Verdict::Warning => None,
        Verdict::Refused => Some(Kind::Refused),
        Verdict::Fault => Some(Kind::Destination),
    }
}
