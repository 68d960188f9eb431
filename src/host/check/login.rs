//! One login: what `sshd` would say to a certificate that somebody shows for a user.

use std::path::Path;

use ssh_key::certificate::CertType;
use ssh_key::{Algorithm, Certificate, HashAlg};

use super::asker::Asker;
use super::finding::Finding;
use super::here;
use crate::clock::{LEEWAY, rfc3339};
use crate::host::machine::{self, User};
use crate::host::sshd::Effective;
use crate::principal::{Labels, holds};
use crate::text::listed;

const CERTIFICATE: &str = "certificate";
const USER: &str = "user";
const PRINCIPALS: &str = "principals";
/// How many principals are named.
const MOST_NAMED: usize = 10;
/// Options of a certificate that `sshd` knows and must obey (`PROTOCOL.certkeys`).
const KNOWN: [&str; 3] = ["force-command", "source-address", "verify-required"];

/// Who wants in.
#[derive(Debug)]
pub struct Login {
    /// As which user.
    pub user: String,
    /// By which certificate.
    pub certificate: Certificate,
}

pub(super) fn look(login: &Login, effective: &Effective, now: i64) -> Vec<Finding> {
    let mut all = certificate(&login.certificate, effective, now);
    all.extend(principals(login, effective));
    all.extend(user(&login.user, effective));
    if all.is_empty() {
        all.push(Finding::ok(
            "login",
            format!("{} gets in by this certificate, from an address that nothing keeps out", login.user),
        ));
    }
    all
}

fn certificate(certificate: &Certificate, effective: &Effective, now: i64) -> Vec<Finding> {
    let refused = |why: String| Finding::refused(CERTIFICATE, why);
    if certificate.cert_type() != CertType::User {
        return vec![
            refused("it is a host's".to_owned()).hint("give the `key-cert.pub` of the job's destination"),
        ];
    }
    let mut all = Vec::new();
    let ca = certificate.signature_key();
    if certificate.verify_signature().is_err() {
        all.push(refused("its signature does not hold: it is damaged".to_owned()));
    }
    match here::user_cas(effective) {
        // That is the host's fault, and told there.
        Err(_) => {}
        Ok(cas) if cas.iter().any(|known| known.key_data() == ca) => {}
        Ok(_) => all.push(
            refused(format!("the CA that has signed it, {}, is not among those that sshd trusts", ca.fingerprint(HashAlg::Sha256)))
                .hint("is it another authority's? If the CA was rotated, `host watch` or `host refresh` has not heard of it"),
        ),
    }
    let time = |at: u64| rfc3339(i64::try_from(at).unwrap_or(i64::MAX));
    let (here_now, after, before) = (rfc3339(now), certificate.valid_after(), certificate.valid_before());
    let clock = match here::last_word(effective) {
        Some(made) if made.saturating_sub(now) > LEEWAY => {
            "this machine's clock is behind the authority's: `timedatectl`"
        }
        _ => "compare the clocks of this machine, of the authority and of the job: `date -u`",
    };
    let unix = u64::try_from(now).unwrap_or_default();
    if unix < after {
        all.push(
            refused(format!("it is valid from {} on, and here it is {here_now}", time(after))).hint(clock),
        );
    }
    if unix >= before {
        all.push(refused(format!("it has ended at {}, and here it is {here_now}", time(before))).hint(clock));
    }
    if let Some(Ok(refusals)) = here::refusals(effective)
        && refusals.refuse(certificate)
    {
        all.push(
            refused(format!("RevokedKeys refuses it: serial {}, of {}", certificate.serial(), certificate.key_id()))
                .hint("the job gave it back, or an operator revoked it or its CA: `authority audit --serial` says which; with --fail-closed, nothing may have been heard for too long"),
        );
    }
    all.extend(options(certificate, effective));
    all
}

/// What `sshd` must know of a certificate to take it.
fn options(certificate: &Certificate, effective: &Effective) -> Vec<Finding> {
    let mut all = Vec::new();
    for (name, value) in certificate.critical_options().iter() {
        let about = || format!("it is good only with `{name}`: {value}");
        match name.as_str() {
            "source-address" => {
                all.push(Finding::warning(CERTIFICATE, about()).hint("from other addresses sshd refuses it"))
            }
            name if KNOWN.contains(&name) => all.push(Finding::warning(CERTIFICATE, about())),
            _ => all.push(Finding::refused(CERTIFICATE, about())),
        }
    }
    let of_key = match certificate.algorithm() {
        Algorithm::Rsa { .. } => "rsa-sha2-512-cert-v01@openssh.com".to_owned(),
        other => other.to_certificate_type(),
    };
    let of_ca = certificate.signature().algorithm().to_string();
    // Older ones call the first one otherwise.
    let wants = [
        ("pubkeyacceptedalgorithms", &of_key),
        ("pubkeyacceptedkeytypes", &of_key),
        ("casignaturealgorithms", &of_ca),
    ];
    for (keyword, algorithm) in wants {
        if effective.lists(keyword, algorithm) == Some(false) {
            all.push(Finding::refused(CERTIFICATE, format!("sshd's {keyword} has no {algorithm}")));
        }
    }
    if effective.one("pubkeyauthentication") == Some("no") {
        all.push(Finding::refused(CERTIFICATE, "PubkeyAuthentication is off"));
    }
    all
}

/// Whether the certificate names somebody who is this user here.
fn principals(login: &Login, effective: &Effective) -> Option<Finding> {
    let Login { user, certificate } = login;
    let names = certificate.valid_principals();
    let all = listed(names.iter().map(String::as_str), MOST_NAMED);
    if let Some(file) = effective.one("authorizedprincipalsfile") {
        return Some(Finding::warning(
            PRINCIPALS,
            format!("{file} says who may log in as {user}; it is not looked at here"),
        ));
    }
    let Some(asker) = Asker::of(effective) else {
        return (!names.contains(user)).then(|| {
            Finding::refused(PRINCIPALS, format!("it holds {all}, and not `{user}`"))
                .hint("a role gives `logins`; with `node_labels` they hold where `AuthorizedPrincipalsCommand` asks `host principals`")
        });
    };
    if !asker.is_ours() {
        let program = asker.program.display();
        return Some(Finding::warning(
            PRINCIPALS,
            format!("{program} says who may log in as {user}; it is not asked here"),
        ));
    }
    // Labels that cannot be read are the host's fault, and told there.
    let labels = asker.labels().ok()?;
    if names.iter().any(|name| holds(name, user, &labels)) {
        return None;
    }
    let of_user = names.iter().any(|name| {
        name == user || name.strip_prefix(user.as_str()).is_some_and(|rest| rest.starts_with('@'))
    });
    Some(match of_user {
        true => Finding::refused(
            PRINCIPALS,
            format!("it holds {all}, and this host has other labels: {}", said(&labels, &asker)),
        )
        .hint("the role's `node_labels` must be labels of this host: `host install --labels`"),
        false => Finding::refused(PRINCIPALS, format!("it holds {all}: none is `{user}`"))
            .hint("no role of this bot has that user among its `logins`"),
    })
}

/// The labels that a host has, as they were given.
fn said(labels: &Labels, asker: &Asker) -> String {
    if *labels == Labels::default() {
        return "none".to_owned();
    }
    let given: Vec<&str> = asker.values("--labels").chain(asker.values("--labels-file")).collect();
    given.join(", ")
}

/// What keeps a user out, whatever is shown.
fn user(name: &str, effective: &Effective) -> Vec<Finding> {
    let refused = |why: String| Finding::refused(USER, why);
    let user = match User::named(name) {
        Ok(Some(user)) => user,
        Ok(None) => {
            return vec![
                refused(format!("there is no user `{name}` on this host"))
                    .hint(format!("sudo useradd --create-home {name}")),
            ];
        }
        Err(error) => return vec![Finding::fault(USER, error.to_string())],
    };
    let mut all = Vec::new();
    let shell = if user.shell.is_empty() { "/bin/sh" } else { &user.shell };
    if !Path::new(shell).is_file() {
        all.push(refused(format!("its shell, {shell}, is not there")));
    } else if shell.ends_with("/nologin") || shell.ends_with("/false") {
        all.push(Finding::warning(USER, format!("its shell, {shell}, lets nobody do anything")));
    }
    // As `usermod --lock` writes it.
    let shadow = machine::asked("getent", ["shadow", "--", name]).map(|said| said.stdout).unwrap_or_default();
    let is_locked = shadow.split(':').nth(1).is_some_and(|password| password.starts_with('!'));
    if is_locked && effective.one("usepam") == Some("no") {
        all.push(refused("its account is locked, and sshd does without PAM".to_owned()).hint(format!(
            "sudo usermod --password '*' {name}: no password is right then, and it is not locked"
        )));
    }
    if user.uid == 0 && effective.one("permitrootlogin") == Some("no") {
        all.push(refused("PermitRootLogin is off".to_owned()));
    }
    if user.uid != 0 && Path::new("/etc/nologin").exists() {
        all.push(refused("/etc/nologin is there: nobody but root gets in".to_owned()));
    }
    let groups = machine::asked("id", ["-Gn", "--", name]).map(|said| said.stdout).unwrap_or_default();
    let groups: Vec<&str> = groups.split_whitespace().collect();
    let is_in = |keyword: &str, names: &[&str]| {
        let patterns: Vec<&str> = effective.all(keyword).flat_map(str::split_whitespace).collect();
        (!patterns.is_empty())
            .then(|| patterns.iter().any(|pattern| names.iter().any(|name| matches(pattern, name))))
    };
    for (keyword, names, keeps_out) in [
        ("denyusers", &[name][..], Some(true)),
        ("allowusers", &[name][..], Some(false)),
        ("denygroups", &groups[..], Some(true)),
        ("allowgroups", &groups[..], Some(false)),
    ] {
        if is_in(keyword, names) == keeps_out {
            all.push(refused(format!("sshd's {keyword} keeps `{name}` out")));
        }
    }
    all
}

/// A pattern of `sshd`'s for users and groups, `*` and `?` in it; of `USER@HOST` the user alone, `!` in front is none.
fn matches(pattern: &str, name: &str) -> bool {
    fn glob(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                glob(rest, name) || name.split_first().is_some_and(|(_, name)| glob(pattern, name))
            }
            (Some((b'?', rest)), Some((_, name))) => glob(rest, name),
            (Some((one, rest)), Some((other, name))) => one == other && glob(rest, name),
            _ => false,
        }
    }
    glob(pattern.split('@').next().unwrap_or_default().as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_users() {
        for (pattern, name, yes) in [
            ("deploy", "deploy", true),
            ("deploy", "deployer", false),
            ("dep*", "deploy", true),
            ("*", "x", true),
            ("d?ploy@10.0.0.*", "deploy", true),
            ("!deploy", "deploy", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }
}
