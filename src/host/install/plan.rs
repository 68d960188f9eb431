//! What is to stand where, and whether it does.

use std::path::{Path, PathBuf};

use ssh_key::certificate::CertType;

use super::mark::{self, Found, marked};
use super::places::{
    CA_FILE, DESTINATION, END_SESSIONS, GIVEN, JOINED, REFRESH, REFRESH_TIMER, RENEW, RENEW_TIMER, SNIPPET,
    TMPFILES, TRUST, UNFINISHED, USERS, WATCH, pieces, unit,
};
use super::settings::{Certified, Settings};
use super::units;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::host::lists::KRL;
use crate::host::machine::{self, User};
use crate::host::sshd::{self, Effective};
use crate::host::store::USER_CA;

/// What there is to do by hand where this cannot do it.
const BY_HAND: &str = "docs/resources/ssh.md says how it is done by hand";

/// A file with its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it stands.
    pub(super) path: String,
    /// All of it.
    pub(super) text: String,
}

impl Piece {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: marked(text) }
    }

    /// Whether it stands there.
    pub(super) fn is_there(&self) -> bool {
        mark::found(Path::new(&self.path)) == Found::Ours(self.text.clone())
    }
}

/// The host as it is found.
#[derive(Debug)]
pub(super) struct Host {
    /// The public half of the key of `sshd`'s that is certified.
    pub(super) public_key: PathBuf,
    /// `sshd`'s unit.
    pub(super) sshd: &'static str,
    /// Whether a run was interrupted.
    pub(super) is_unfinished: bool,
}

impl Host {
    /// Looks at it, and changes nothing.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be set up: that takes root, systemd, and an `sshd` that takes its configuration and
    /// has nothing of what is to be written.
    pub(super) fn look(settings: &Settings) -> Result<Self> {
        needs()?;
        sshd::prepare();
        sshd::test(None)?;
        let sshd = sshd::unit()?.ok_or_else(|| {
            Error::usage("systemd knows neither ssh.service nor sshd.service").hint(BY_HAND)
        })?;
        let is_unfinished = Path::new(UNFINISHED).exists();
        stranger(is_unfinished)?;
        let effective = Effective::of(None, None)?;
        conflict(&effective)?;
        let public_key = public_key(settings, &effective)?;
        Ok(Self { public_key, sshd, is_unfinished })
    }
}

/// That this is root's doing, on a machine with systemd.
pub(super) fn needs() -> Result<()> {
    if crate::folder::trust::me() != 0 {
        return Err(Error::usage("this takes root").hint("run it with sudo"));
    }
    match machine::has_systemd() {
        true => Ok(()),
        false => Err(Error::usage("systemd does not run here").hint(BY_HAND)),
    }
}

/// Nothing that is not ours, or that somebody has edited, is overwritten.
fn stranger(is_unfinished: bool) -> Result<()> {
    for path in pieces().iter().map(String::as_str).chain([SNIPPET]) {
        match mark::found(Path::new(path)) {
            Found::Nothing | Found::Ours(_) => {}
            Found::Edited => {
                return Err(Error::usage(format!("{path} was edited since `host install` wrote it"))
                    .hint("undo that, or move it away: it is written anew"));
            }
            Found::Foreign => {
                return Err(Error::usage(format!("{path} is there, and `host install` has not written it"))
                    .hint("move away what was set up by hand, or go on by hand"));
            }
        }
    }
    let is_ours = |units: &[&str]| {
        units.iter().any(|name| matches!(mark::found(Path::new(&unit(name))), Found::Ours(_)))
    };
    for (folder, units) in [(TRUST, &[WATCH, REFRESH][..]), (DESTINATION, &[RENEW][..])] {
        if !is_unfinished && !is_ours(units) && std::fs::symlink_metadata(folder).is_ok() {
            return Err(Error::usage(format!("{folder} is there, and `host install` has not made it"))
                .hint("move it away if nothing uses it any more"));
        }
    }
    Ok(())
}

/// That `sshd` is not told already whom to believe, by somebody else.
fn conflict(effective: &Effective) -> Result<()> {
    let ours = match mark::found(Path::new(SNIPPET)) {
        Found::Ours(text) => text,
        _ => String::new(),
    };
    let is_ours = |keyword: &str, value: &str| {
        let mut lines = ours.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(word, said)| word.eq_ignore_ascii_case(keyword) && said == value)
    };
    for keyword in
        ["TrustedUserCAKeys", "RevokedKeys", "AuthorizedPrincipalsCommand", "AuthorizedPrincipalsFile"]
    {
        if let Some(value) = effective.one(&keyword.to_ascii_lowercase())
            && !is_ours(keyword, value)
        {
            return Err(Error::usage(format!("sshd has a {keyword} already: {value}"))
                .hint("this would take its place, and shut out whom it lets in: take it out of sshd's configuration first")
                .hint(BY_HAND));
        }
    }
    Ok(())
}

/// The public half of the key that is certified: the one that was named, that of the certificate, or Ed25519's before the others.
fn public_key(settings: &Settings, effective: &Effective) -> Result<PathBuf> {
    let keys: Vec<&str> = effective.all("hostkey").collect();
    let halves: Vec<PathBuf> = keys.iter().map(|key| sshd::public_half(key)).collect();
    let of = |path: &Path| sshd::public_key(path).ok();
    let none = |what: &str| {
        Error::usage(format!("{what}: sshd has {}", keys.join(", "))).hint("name one of them by --host-key")
    };
    if let Some(key) = &settings.host_key {
        let half = sshd::public_half(&key.to_string_lossy());
        return halves
            .into_iter()
            .find(|one| *one == half)
            .ok_or_else(|| none(&format!("{} is no HostKey of sshd's", key.display())));
    }
    let found = match &settings.certified {
        Certified::Given(path) => {
            let certificate = given(path)?;
            let is_its =
                |half: &&PathBuf| of(half).is_some_and(|key| key.key_data() == certificate.public_key());
            halves.iter().find(is_its)
        }
        Certified::Joined(_) => {
            let is_ed25519 =
                |half: &&PathBuf| of(half).is_some_and(|key| key.algorithm() == ssh_key::Algorithm::Ed25519);
            halves.iter().find(is_ed25519).or_else(|| halves.iter().find(|half| of(half).is_some()))
        }
    };
    found.cloned().ok_or_else(|| {
        none("the certificate is for no HostKey of sshd's, or their public halves cannot be read")
    })
}

/// The certificate that an operator has signed.
fn given(path: &Path) -> Result<ssh_key::Certificate> {
    sshd::certificate(path)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {}", path.display())))
}

/// That `sshd` and jobs could use a certificate, which a CA of these has signed.
pub(super) fn usable(
    certificate: &ssh_key::Certificate,
    cas: &str,
    key: &Path,
    now: i64,
) -> Result<(), String> {
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's".to_owned());
    }
    let own = sshd::public_key(key).map_err(|unfit| format!("{}: {unfit}", key.display()))?;
    if own.key_data() != certificate.public_key() {
        return Err(format!("it is for another key than {}", key.display()));
    }
    let mut cas = cas.lines().filter_map(|line| ssh_key::PublicKey::from_openssh(line).ok());
    if !cas.any(|ca| ca.key_data() == certificate.signature_key()) || certificate.verify_signature().is_err()
    {
        return Err("this authority has not signed it".to_owned());
    }
    let now = u64::try_from(now).unwrap_or_default();
    match (certificate.valid_after() <= now, now < certificate.valid_before()) {
        (true, true) => Ok(()),
        (false, _) => Err("by this machine's clock it is not valid yet".to_owned()),
        (_, false) => Err("it has ended".to_owned()),
    }
}

/// How long the certificate lives that the host has got, in seconds; none where it needs another.
pub(super) fn life(settings: &Settings, host: &Host, now: i64) -> Option<u64> {
    let certificate = sshd::certificate(Path::new(JOINED)).ok()?;
    let own = sshd::public_key(&host.public_key).ok()?;
    let mut names = certificate.valid_principals().to_vec();
    names.sort_unstable();
    let is_good = certificate.public_key() == own.key_data()
        && Ok(names) == crate::principal::hosts(settings.principals.clone())
        && u64::try_from(now).unwrap_or_default() < certificate.valid_before();
    is_good.then(|| certificate.valid_before().saturating_sub(certificate.valid_after()))
}

/// What is to stand where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order in which they are written.
    pub(super) pieces: Vec<Piece>,
    /// `sshd`'s lines, the last of all.
    pub(super) snippet: Piece,
    /// Units that are enabled, and run.
    pub(super) units: Vec<&'static str>,
}

impl Plan {
    /// For a host whose certificate lives so long, where it joins.
    pub(super) fn new(settings: &Settings, host: &Host, life: Option<u64>) -> Result<Self> {
        let ca_file = Path::new(CA_FILE);
        let (mut pieces, mut units) = (Vec::new(), Vec::new());
        let mut add = |path: &str, text: &str| pieces.push(Piece::new(path, text));
        let copy = |path: &Path| read::text(path, Trust::Anyone, Limit::FILE);
        if let Some(path) = &settings.trust.ca_file {
            add(CA_FILE, &copy(path)?);
        }
        let certificate = match &settings.certified {
            Certified::Given(path) => {
                add(GIVEN, &copy(path)?);
                GIVEN
            }
            Certified::Joined(join) => {
                let args = units::join(settings, join, ca_file, &host.public_key);
                add(&unit(RENEW), &units::renew(settings, &args, host.sshd));
                if let Some(life) = life {
                    add(&unit(RENEW_TIMER), &units::renew_timer(life));
                }
                units.push(RENEW_TIMER);
                JOINED
            }
        };
        if settings.timer {
            add(&unit(REFRESH), &units::refresh(settings, ca_file));
            add(&unit(REFRESH_TIMER), &units::refresh_timer());
            units.push(REFRESH_TIMER);
        } else {
            add(&unit(WATCH), &units::watch(settings, ca_file));
            units.push(WATCH);
        }
        if settings.end_sessions {
            add(TMPFILES, &units::tmpfiles());
            add(&unit(END_SESSIONS), &units::end_sessions(settings));
            units.push(END_SESSIONS);
        }
        let snippet = Piece::new(SNIPPET, &units::sshd(settings, Path::new(certificate)));
        Ok(Self { pieces, snippet, units })
    }

    /// Files of an earlier one that are none of this one's.
    pub(super) fn stale(&self) -> Vec<String> {
        let is_left = |path: &String| {
            !self.pieces.iter().any(|piece| piece.path == *path)
                && matches!(mark::found(Path::new(path)), Found::Ours(_))
        };
        pieces().into_iter().filter(is_left).collect()
    }

    /// Whether all of it is there, and runs.
    pub(super) fn is_in_place(&self, host: &Host, included: bool) -> Result<bool> {
        let files = [USER_CA, KRL].iter().all(|name| Path::new(TRUST).join(name).is_file());
        let there = self.pieces.iter().chain([&self.snippet]).all(Piece::is_there) && self.stale().is_empty();
        if host.is_unfinished || !files || !there || !included {
            return Ok(false);
        }
        for (name, _) in USERS {
            if User::named(name)?.is_none() {
                return Ok(false);
            }
        }
        for unit in &self.units {
            if !machine::unit_is("is-enabled", unit)? || !machine::unit_is("is-active", unit)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether `sshd` goes by it.
    ///
    /// # Errors
    /// `Kind::Usage` where something else in its configuration comes first.
    pub(super) fn in_force(&self) -> Result<()> {
        let effective = Effective::of(None, None)?;
        for (word, value) in self.snippet.text.lines().filter_map(|line| line.split_once(' ')) {
            if word != "#" && !effective.all(&word.to_ascii_lowercase()).any(|said| said == value) {
                return Err(Error::usage(format!(
                    "sshd does not go by the `{word}` of {SNIPPET}: another part of its configuration comes first"
                ))
                .hint(BY_HAND));
            }
        }
        Ok(())
    }
}
