//! The texts of what is installed: systemd's units, `tmpfiles.d`'s line, and `sshd`'s.

use std::fmt::Write as _;
use std::path::Path;

use super::places::{DESTINATION, SESSIONS, SSHD_USER, STORAGE, TRUST, WATCH_USER};
use super::settings::{Join, Settings};
use crate::host::lists::KRL;
use crate::host::store::USER_CA;

/// The longest that a certificate lives which no operator signed by hand; where roles allow less it is cut.
const TTL: &str = "7d";

/// What keeps a process from what it has no need of.
const CONFINED: &str =
    "NoNewPrivileges=yes\nProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nCapabilityBoundingSet=\n";
const NETWORK: &str = "Wants=network-online.target\nAfter=network-online.target\n";

/// A word of a unit's command line (`systemd.service(5)`).
fn word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '@' | ',' | '=' | '+' | '-')
    };
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}

/// A command of this program's, for a unit.
fn line(settings: &Settings, args: &[String]) -> String {
    let words: Vec<String> = args.iter().map(|arg| word(arg)).collect();
    format!("{} {}", settings.program.display(), words.join(" "))
}

fn environment(settings: &Settings) -> String {
    let line =
        |(name, value): &(String, String)| format!("Environment={}\n", word(&format!("{name}={value}")));
    settings.proxies.iter().map(line).collect()
}

fn texts<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// How the authority is reached and judged; its CA file is the copy.
fn authority(settings: &Settings, ca_file: &Path) -> Vec<String> {
    let mut args = texts(["--authority", &settings.authority]);
    match &settings.trust.ca_pin {
        Some(pin) => args.extend(texts(["--ca-pin", pin])),
        None if settings.trust.ca_file.is_some() => {
            args.extend(["--ca-file".to_owned(), ca_file.display().to_string()])
        }
        None => {}
    }
    args
}

/// `host refresh` or `host watch`.
pub(super) fn fetch(settings: &Settings, ca_file: &Path, what: &str) -> Vec<String> {
    let mut args = texts(["host", what]);
    args.extend(authority(settings, ca_file));
    args.extend(texts(["--dir", TRUST]));
    if let Some(key) = &settings.statement_key {
        args.push(format!("--statement-key={key}"));
    }
    args
}

/// The `once` that gets the host's certificate.
pub(super) fn join(settings: &Settings, join: &Join, ca_file: &Path, public_key: &Path) -> Vec<String> {
    let mut args = texts(["once"]);
    args.extend(authority(settings, ca_file));
    args.extend(texts(["--join-method", &join.method, "--token", &join.token]));
    if join.registers {
        args.extend(texts(["--storage", STORAGE]));
    }
    let output =
        format!("ssh-host,principals={},public-key={}", settings.principals.join("+"), public_key.display());
    args.extend(texts(["--destination", DESTINATION, "--ttl", TTL, "--quiet", "--output", &output]));
    args
}

/// The watcher's unit.
pub(super) fn watch(settings: &Settings, ca_file: &Path) -> String {
    let mut args = fetch(settings, ca_file, "watch");
    args.extend(settings.fail_closed.iter().flat_map(|after| texts(["--fail-closed", after])));
    format!(
        "[Unit]\nDescription=CA keys and revocation lists of machine-id, at once\n{NETWORK}\n\
         [Service]\nUser={WATCH_USER}\n{}ExecStart={}\nRestart=always\nRestartSec=1s\n\
         StateDirectory=machine-id-host\nStateDirectoryMode=0755\nUMask=0022\n{CONFINED}\n\
         [Install]\nWantedBy=multi-user.target\n",
        environment(settings),
        line(settings, &args)
    )
}

/// The unit in the watcher's place.
pub(super) fn refresh(settings: &Settings, ca_file: &Path) -> String {
    format!(
        "[Unit]\nDescription=CA keys and revocation lists of machine-id\n{NETWORK}\n\
         [Service]\nType=oneshot\nUser={WATCH_USER}\n{}ExecStart={}\n\
         StateDirectory=machine-id-host\nStateDirectoryMode=0755\nUMask=0022\n{CONFINED}",
        environment(settings),
        line(settings, &fetch(settings, ca_file, "refresh"))
    )
}

/// Its timer.
pub(super) fn refresh_timer() -> String {
    "[Unit]\nDescription=CA keys and revocation lists of machine-id, at least every minute\n\n\
     [Timer]\nOnBootSec=10s\nOnActiveSec=10s\nOnUnitActiveSec=50s\nRandomizedDelaySec=9s\nAccuracySec=1s\n\n\
     [Install]\nWantedBy=timers.target\n"
        .to_owned()
}

/// The unit that renews the host's certificate, and has `sshd` read it.
pub(super) fn renew(settings: &Settings, args: &[String], sshd: &str) -> String {
    format!(
        "[Unit]\nDescription=Certificate of this host's sshd, renewed by machine-id\n{NETWORK}\n\
         [Service]\nType=oneshot\n{}ExecStart={}\nExecStartPost=+/usr/bin/systemctl try-reload-or-restart {sshd}\n\
         Restart=on-failure\nRestartSec=1min\nRestartPreventExitStatus=2 4\nUMask=0077\n\
         ReadWritePaths=/etc/ssh -{STORAGE}\n{CONFINED}",
        environment(settings),
        line(settings, args)
    )
}

/// Its timer: three times in the life of a certificate, so that one that fails is made good.
pub(super) fn renew_timer(life: u64) -> String {
    let minutes = (life / 180).max(1);
    format!(
        "[Unit]\nDescription=Certificate of this host's sshd, three times in its life\n\n\
         [Timer]\nOnBootSec=1min\nOnActiveSec={minutes}min\nOnUnitActiveSec={minutes}min\nAccuracySec=30s\n\n\
         [Install]\nWantedBy=timers.target\n"
    )
}

/// The unit that ends sessions.
pub(super) fn end_sessions(settings: &Settings) -> String {
    let args = texts(["host", "watch", "--dir", TRUST, "--sessions", SESSIONS, "--end-sessions"]);
    format!(
        "[Unit]\nDescription=Ends sessions of what machine-id's authority has revoked\n\n\
         [Service]\nExecStart={}\nRestart=always\nRestartSec=1\nNoNewPrivileges=yes\nPrivateNetwork=yes\n\
         RestrictAddressFamilies=AF_UNIX\nCapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n\
         ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\n\n[Install]\nWantedBy=multi-user.target\n",
        line(settings, &args)
    )
}

/// The folder of notes.
pub(super) fn tmpfiles() -> String {
    format!("d {SESSIONS} 0700 {SSHD_USER} {SSHD_USER} -\n")
}

/// `sshd`'s lines.
pub(super) fn sshd(settings: &Settings, certificate: &Path) -> String {
    let mut text = format!(
        "HostCertificate {}\nTrustedUserCAKeys {TRUST}/{USER_CA}\nRevokedKeys {TRUST}/{KRL}\n\
         AuthorizedPrincipalsCommand {} host principals",
        certificate.display(),
        settings.program.display()
    );
    if settings.end_sessions {
        let _ = write!(text, " --sessions {SESSIONS}");
    }
    if let Some(after) = &settings.fail_closed {
        let _ = write!(text, " --dir {TRUST} --fail-closed {after}");
    }
    let _ =
        write!(text, " --labels={} %u %k\nAuthorizedPrincipalsCommandUser {SSHD_USER}\n", settings.labels);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_units_mean_themselves() {
        assert_eq!(word("--ca-pin"), "--ca-pin");
        assert_eq!(word("https://[::1]:8443"), "\"https://[::1]:8443\"");
        assert_eq!(word(r#"a b"c\d%e$f"#), r#""a b\"c\\d%%e$$f""#);
        assert_eq!(word(""), "\"\"");
    }

    #[test]
    fn a_timer_comes_three_times_in_a_life() {
        for (life, minutes) in [(7 * 24 * 3600, 3360), (3600, 20), (60, 1)] {
            assert!(renew_timer(life).contains(&format!("OnUnitActiveSec={minutes}min")), "{life}");
        }
    }
}
