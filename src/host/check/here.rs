//! What is the host's alone: CA keys, lists, the command that `sshd` asks, units, the clock.

use std::path::Path;
use std::time::Duration;

use super::asker::Asker;
use super::finding::Finding;
use crate::clock::{Clock, LEEWAY};
use crate::document::parse_duration;
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::{self, Standing};
use crate::host::heard::{self, HEARD, Heard};
use crate::host::install::places;
use crate::host::lists::MAX_FILE;
use crate::host::machine::{self, User};
use crate::host::sshd::Effective;
use crate::krl::{self, Refusals};

/// After so long without a word somebody should look: a timer comes each minute, a watcher hears each quarter.
const SILENT: Duration = Duration::from_secs(300);

pub(super) fn look(effective: &Effective, now: i64) -> Vec<Finding> {
    let mut all = vec![cas(effective)];
    all.extend(list(effective, now));
    all.extend(asked(effective));
    all.extend(units());
    all.extend(synchronised());
    all
}

/// The keys of users' CAs.
pub(super) fn user_cas(effective: &Effective) -> Result<Vec<ssh_key::PublicKey>, String> {
    let path = effective.one("trustedusercakeys").ok_or("it is set nowhere")?;
    let text = read::raw(Path::new(path), Trust::Anyone, Limit::FILE).and_then(read::utf8);
    let text = text.map_err(|unfit| format!("{path}: {unfit}"))?;
    let keys: Vec<_> =
        text.lines().filter_map(|line| ssh_key::PublicKey::from_openssh(line.trim()).ok()).collect();
    if keys.is_empty() { Err(format!("{path} holds no key")) } else { Ok(keys) }
}

fn cas(effective: &Effective) -> Finding {
    const ABOUT: &str = "TrustedUserCAKeys";
    let keys = match user_cas(effective) {
        Ok(keys) => keys,
        Err(why) => {
            return Finding::fault(ABOUT, format!("sshd trusts no CA: {why}"))
                .hint("`machine-id host install` sets it up; `machine-id host refresh` fetches the keys");
        }
    };
    let path = effective.one("trustedusercakeys").unwrap_or_default();
    match held(path) {
        Ok(()) => {
            let keys: Vec<String> =
                keys.iter().map(|key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string()).collect();
            Finding::ok(ABOUT, format!("{path}: {}", keys.join(", ")))
        }
        Err(why) => {
            Finding::fault(ABOUT, format!("{path}: {why}: whoever can write there lets in whom they like"))
                .hint("let root, or the user of `host watch`, own it, and nobody else write there")
        }
    }
}

/// That nobody can change a file but root and whoever keeps its folder.
fn held(path: &str) -> Result<(), String> {
    let folder = Path::new(path).parent().and_then(|folder| std::fs::metadata(folder).ok());
    let uid = folder.map_or(0, |folder| Standing::from(&folder).uid);
    trust::held_by(Path::new(path), uid).map_err(|unfit| unfit.to_string())
}

/// The list of what is revoked; none where there is none that `sshd` could read.
pub(super) fn refusals(effective: &Effective) -> Option<Result<Refusals, String>> {
    let path = effective.one("revokedkeys")?;
    let list =
        read::raw(Path::new(path), Trust::Anyone, Limit::bytes(MAX_FILE)).map_err(|unfit| unfit.to_string());
    Some(list.and_then(|list| Refusals::read(&list).map_err(str::to_owned)))
}

fn list(effective: &Effective, now: i64) -> Vec<Finding> {
    const ABOUT: &str = "RevokedKeys";
    let Some(path) = effective.one("revokedkeys") else {
        return vec![
            Finding::warning(ABOUT, "it is set nowhere: what was revoked gets in until it ends")
                .hint("`machine-id host install` sets it up"),
        ];
    };
    if let Some(Err(why)) = refusals(effective) {
        return vec![
            Finding::fault(ABOUT, format!("{path}: {why}: sshd refuses every key"))
                .hint("see the log of `host watch` or `host refresh`; what is damaged it fetches anew once it is removed"),
        ];
    }
    let mut all: Vec<Finding> = held(path)
        .err()
        .map(|why| {
            Finding::fault(ABOUT, format!("{path}: {why}: whoever can write there undoes revocations"))
        })
        .into_iter()
        .collect();
    let read = read::raw(Path::new(path), Trust::Anyone, Limit::bytes(MAX_FILE)).ok();
    let date =
        read.and_then(|list| krl::read(&list).ok()).map(|krl| i64::try_from(krl.date).unwrap_or(i64::MAX));
    let ahead = date.unwrap_or_default().saturating_sub(now);
    if ahead > LEEWAY {
        all.push(
            Finding::fault("clock", format!("{path} was made {} from now", span(ahead)))
                .hint("this machine's clock is behind, or the authority's was ahead: `timedatectl`"),
        );
    }
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    all.push(match heard::age(folder, &Clock::system()) {
        Err(error) => Finding::fault(ABOUT, error.to_string()),
        // Of an authority that states nothing, or a list of somebody else's.
        Ok(None) if !folder.join(HEARD).exists() => Finding::ok(ABOUT, format!("{path} can be read; nothing says how old it is")),
        Ok(None) => Finding::fault(ABOUT, heard::silent(None)).hint("`systemctl status machine-id-watch`"),
        Ok(Some(age)) if age > SILENT => Finding::warning(ABOUT, heard::silent(Some(age)))
            .hint("what was revoked since gets in: `systemctl status machine-id-watch`, and does it reach the authority?"),
        Ok(Some(age)) => Finding::ok(ABOUT, format!("{path} is as the authority said {} ago", span_of(age))),
    });
    all
}

fn span(seconds: i64) -> String {
    span_of(Duration::from_secs(seconds.unsigned_abs()))
}

fn span_of(age: Duration) -> String {
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

/// The command that `sshd` asks, which it does not run if others could have changed it.
fn asked(effective: &Effective) -> Vec<Finding> {
    const ABOUT: &str = "AuthorizedPrincipalsCommand";
    let Some(asker) = Asker::of(effective) else {
        return vec![
            Finding::warning(ABOUT, "it is set nowhere: who gets in by a role with labels does not here")
                .hint("`machine-id host install` sets it up"),
        ];
    };
    let mut all = Vec::new();
    let mut fault = |why: String, hint: &str| all.push(Finding::fault(ABOUT, why).hint(hint));
    if let Err(unfit) = trust::roots(&asker.program) {
        fault(
            format!("sshd may not run {}: {unfit}", asker.program.display()),
            "sudo install -o root -g root -m 0755 machine-id /usr/local/bin/machine-id",
        );
    }
    match User::named(&asker.user) {
        Ok(Some(user)) => {
            for folder in asker.values("--sessions") {
                if let Err(why) = notes(Path::new(folder), &user) {
                    fault(
                        format!("no login can be noted in {folder}: {why}"),
                        "`systemd-tmpfiles --create machine-id.conf` makes it",
                    );
                }
            }
        }
        Ok(None) => {
            fault(format!("its user `{}` is not there", asker.user), "`machine-id host install` makes it")
        }
        Err(error) => fault(error.to_string(), "`getent passwd` says more"),
    }
    if asker.is_ours() {
        if let Err(error) = asker.labels() {
            fault(error.to_string(), "nobody gets in by certificate until that is right");
        }
        if let Some((after, folder)) = asker.values("--fail-closed").next().zip(asker.values("--dir").next())
        {
            let closed = parse_duration(after).map_err(crate::error::Error::usage).and_then(|after| {
                heard::within(Path::new(folder), Duration::from_secs(after), &Clock::system())
            });
            if let Err(error) = closed {
                fault(
                    error.to_string(),
                    "`systemctl status machine-id-watch`, and does it reach the authority?",
                );
            }
        }
    }
    if all.is_empty() {
        all.push(Finding::ok(
            ABOUT,
            format!("{} is root's, and runs as {}", asker.program.display(), asker.user),
        ));
    }
    all
}

/// That a folder of notes is that user's alone.
fn notes(path: &Path, user: &User) -> Result<(), String> {
    let folder = Folder::of_another(path).map_err(|unfit| unfit.to_string())?;
    let standing = folder.standing().map_err(|error| error.to_string())?;
    if standing.uid == user.uid {
        Ok(())
    } else {
        Err(format!("it belongs to another user (uid {})", standing.uid))
    }
}

/// Units of ours that are enabled run.
fn units() -> Vec<Finding> {
    const ABOUT: &str = "units";
    if !machine::has_systemd() {
        return Vec::new();
    }
    let there = places::UNITS.iter().filter(|unit| Path::new(&places::unit(unit)).exists());
    let (mut all, mut running) = (Vec::new(), Vec::new());
    for unit in there {
        let is = |question| machine::unit_is(question, unit).unwrap_or(false);
        // What a timer starts runs now and then.
        let stays = ![places::REFRESH, places::RENEW].contains(unit);
        let active = is("is-active");
        if is("is-failed") || stays && is("is-enabled") && !active {
            all.push(
                Finding::fault(ABOUT, format!("{unit} has failed or does not run"))
                    .hint(format!("journalctl -u {unit}")),
            );
        } else if stays && active {
            running.push(*unit);
        }
    }
    if !running.is_empty() {
        all.push(Finding::ok(ABOUT, format!("{} run", running.join(", "))));
    }
    all
}

/// Whether the system says that its clock follows another.
fn synchronised() -> Option<Finding> {
    let said = machine::asked("timedatectl", ["show", "--property=NTPSynchronized", "--value"]).ok()?;
    (said.is_good() && said.stdout.trim() == "no").then(|| {
        Finding::warning("clock", "the system says that it follows no other: certificates live for minutes")
            .hint("`timedatectl set-ntp true`, or chrony")
    })
}

/// What was heard last, to judge clocks by.
pub(super) fn last_word(effective: &Effective) -> Option<i64> {
    let folder = Path::new(effective.one("revokedkeys")?).parent()?;
    let text = read::raw(&folder.join(HEARD), Trust::Anyone, Limit::FILE).ok()?;
    serde_json::from_slice::<Heard>(&text).ok().map(|heard| heard.lists.krl.made)
}
