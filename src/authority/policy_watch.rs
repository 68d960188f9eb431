//! The policy kept current while the authority serves, and what its log says of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::Authority;
use super::policy_files::Look;
use crate::error::Error;
use crate::terminal::log;
use crate::text::counted;

/// After so many looks at files that do not stand still it is said, and then each time so many more have passed.
const TELL_AFTER: u32 = 10;

/// How much the policy holds, and how much the lints find in it.
pub(super) fn tell(authority: &Authority) {
    let policy = authority.policy();
    log(&format!("policy: {}", policy.summary()));
    let found = policy.lint().findings.len();
    if found > 0 {
        log(&format!("policy: {}, which `machine-id authority check` tells", counted(found, "warning")));
    }
}

fn still_written(latest: Option<PathBuf>) -> String {
    let latest = latest.map_or_else(String::new, |path| format!(", {} last", path.display()));
    format!("policy not taken yet: its files are still being changed{latest}")
}

/// Looks at the policy's files; `asked` on SIGHUP.
pub(super) async fn look(authority: &Arc<Authority>, asked: bool) {
    if let Some(outdated) = asked.then(|| authority.config().outdated()).flatten() {
        log(&format!("SIGHUP: {outdated}"));
        outdated.hints().iter().for_each(|hint| log(&format!("  {hint}")));
    }
    let looking = Arc::clone(authority);
    // A large policy takes a while, which must not hold up exchanges.
    let look = tokio::task::spawn_blocking(move || looking.look_at_policy(asked)).await;
    match look.unwrap_or_else(|_| Look::Refused(Error::internal("it could not be read"))) {
        Look::Unchanged => {}
        Look::Waits { .. } if asked => {
            log("SIGHUP: the policy is taken once it has stood still for a second")
        }
        Look::Waits { looks, latest } if looks % TELL_AFTER == 0 => {
            log(&still_written(latest));
        }
        Look::Waits { .. } => {}
        Look::Taken(_) => {
            log("policy read anew");
            tell(authority);
        }
        Look::Refused(error) => {
            log(&format!("policy not taken, the old one stays: {error}"));
            error.hints().iter().for_each(|hint| log(&format!("  {hint}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_written_for_long_is_told_with_what_changes() {
        let said = still_written(Some("/p/a.yaml".into()));
        assert_eq!(said, "policy not taken yet: its files are still being changed, /p/a.yaml last");
        assert_eq!(still_written(None), "policy not taken yet: its files are still being changed");
    }
}
