//! `machine-id authority lock`, `unlock` and `locks`: whom the operator shuts out.

use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::json;

use super::data_dir;
use crate::authority::config::Config;
use crate::authority::policy::Policy;
use crate::authority::store::Store;
use crate::authority::store::locks::{Lock, LockKind, NewLock, Shut};
use crate::cli::Format;
use crate::cli::authority::{Lock as Args, Whom};
use crate::clock::{Clock, rfc3339};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::join::instance::is_id;
use crate::join::{self, trusted_cluster};
use crate::principal;
use crate::random;
use crate::runtime::block_on;
use crate::terminal::{self, print};
use crate::text::{did_you_mean, hex, shown, shown_exactly};

/// The longest that a message is.
const MAX_MESSAGE: usize = 500;

/// The longest that what a lock is about is.
const MAX_VALUE: usize = 1000;

/// How many issuances a dry run names.
const NAMED: usize = 20;

/// Puts a lock, or says what it would do.
pub(super) fn lock(args: &Args, env: &Environment) -> Result<()> {
    let (kind, value) = whom(&args.whom)?;
    if kind == LockKind::Host && is_id(&value) {
        return Err(Error::usage(format!("`{value}` is a registered worker, and no host's name"))
            .hint(format!("`machine-id authority lock --instance {value}` shuts it out")));
    }
    let lasts = args.ttl.as_deref().map(|ttl| data_dir::ttl(ttl, 3650, "ten years")).transpose()?;
    let message = args.message.as_deref().map(message).transpose()?;
    let config = Config::load(&args.data.data_dir)?;
    warn_of_unknown(&config, kind, &value);
    let store = data_dir::open_store(&config)?;
    let at = Clock::system().now();
    let lock = Lock {
        id: random::id("l")?,
        kind,
        value: value.clone(),
        until: None,
        message,
        by: data_dir::user(env),
        at,
        met: Vec::new(),
        lifted: None,
    };
    if kind.is_of_past() {
        // Of what was never issued there is nothing to lock, and somebody has mistyped it.
        let found = block_on(store.lock(NewLock { lock: lock.clone(), lasts, dry_run: true }))??;
        if !found.is_known {
            return Err(never_issued(&args.whom, &lock));
        }
    }
    let words = shown_exactly(&lock.words());
    let is_named = !matches!(
        kind,
        LockKind::All | LockKind::Bot | LockKind::Token | LockKind::JoinMethod | LockKind::Host
    );
    let shut = block_on(store.lock(NewLock { lock, lasts, dry_run: args.dry_run }))??;
    if is_named && !shut.is_known {
        // Policies name none of these: one that is written otherwise would be in nobody's way.
        terminal::log(&format!("warning: nothing was issued to {words} in the last ten days"));
        terminal::log("hint: `authority audit --format json` has each claim as it must be written here");
    }
    if kind == LockKind::Host {
        warn_of_host(store.as_ref(), &value, &shut);
    }
    let until =
        lasts.map(|lasts| format!(" until {}", rfc3339(at.saturating_add(lasts)))).unwrap_or_default();
    let page = match (args.dry_run, kind.is_of_past()) {
        (true, _) => format!("this would lock {words}{until}, and revoke {}\n{}", count(&shut), named(&shut)),
        (false, _) if kind == LockKind::Host => format!(
            "threw out {words}{until}: no certificate for its name is signed, and {} revoked\n",
            are(&shut)
        ),
        (false, true) => format!("locked {words}: {} revoked\n", are(&shut)),
        (false, false) => {
            format!("locked {words}{until}: nothing more is issued to it, and {} revoked\n", are(&shut))
        }
    };
    let met = match shut.met.as_slice() {
        [] => String::new(),
        ids => format!("its ids are locked with it: {}\n", shown_exactly(&ids.join(", "))),
    };
    print(&(page + &met))
}

/// Lifts locks.
pub(super) fn unlock(data_dir: &Path, whom: &Whom, env: &Environment) -> Result<()> {
    let (kind, value) = self::whom(whom)?;
    let store = data_dir::open_store(&Config::load(data_dir)?)?;
    let (now, by) = (Clock::system().now(), data_dir::user(env));
    let lifted = block_on(store.unlock(kind, value.clone(), now, by))??;
    let name = shown_exactly(&kind.words(&value));
    if lifted.is_empty() {
        let held = block_on(store.locks(now))??;
        let names: Vec<String> = held.iter().map(|lock| shown_exactly(&lock.words())).collect();
        return Err(Error::usage(format!("there is no lock of {name}")).hint(match names.as_slice() {
            [] => "nobody is locked".to_owned(),
            names => format!("locked are: {}", names.join("; ")),
        }));
    }
    print(&format!("unlocked {name}: what it has revoked stays revoked\n"))
}

/// Prints the locks that hold.
pub(super) fn list(data_dir: &Path, format: Format) -> Result<()> {
    let store = data_dir::open_store(&Config::load(data_dir)?)?;
    let locks = block_on(store.locks(Clock::system().now()))??;
    let until = |lock: &Lock| lock.until.map(|(until, _)| rfc3339(until));
    print(&match format {
        Format::Text if locks.is_empty() => "nobody is locked\n".to_owned(),
        Format::Text => locks
            .iter()
            .map(|lock| {
                let until = until(lock).map_or_else(String::new, |until| format!(" until {until}"));
                let message = lock.message.as_ref().map(|message| format!(": {}", shown(message)));
                let words = shown_exactly(&lock.words());
                let message = message.unwrap_or_default();
                format!("{words}{until}, by {} at {}{message}\n", shown(&lock.by), rfc3339(lock.at))
            })
            .collect(),
        Format::Json => locks
            .iter()
            .map(|lock| {
                let line = json!({
                    "id": lock.id, "kind": lock.kind.name(), "value": lock.value, "until": until(lock),
                    "message": lock.message, "by": lock.by, "at": rfc3339(lock.at),
                });
                format!("{line}\n")
            })
            .collect(),
    })
}

/// What the lock is about, as stores have it.
fn whom(whom: &Whom) -> Result<(LockKind, String)> {
    let named = [
        (LockKind::Bot, &whom.bot),
        (LockKind::Token, &whom.token),
        (LockKind::JoinMethod, &whom.join_method),
        (LockKind::Issuer, &whom.issuer),
        (LockKind::Instance, &whom.instance),
        (LockKind::Serial, &whom.serial),
        (LockKind::Issuance, &whom.issuance),
        (LockKind::Run, &whom.run),
        (LockKind::Repository, &whom.repository),
        (LockKind::Host, &whom.host),
        (LockKind::Key, &whom.key),
    ];
    let Some((kind, value)) = named.into_iter().find_map(|(kind, value)| Some((kind, value.as_ref()?)))
    else {
        return Ok((LockKind::All, String::new()));
    };
    let (option, value) = (kind.name(), value.trim());
    if value.is_empty() || value.len() > MAX_VALUE {
        return Err(Error::usage(format!("`--{option}` is empty, or longer than {MAX_VALUE} bytes")));
    }
    let value = match kind {
        LockKind::Serial => serial(value)?.to_string(),
        LockKind::Key => key(value)?,
        LockKind::Host => host(value)?,
        _ => value.to_owned(),
    };
    Ok((kind, value))
}

/// The serial that `--serial` names, as `sshd` (decimal), OpenSSL and nginx (hexadecimal) print it.
pub(super) fn serial(text: &str) -> Result<u64> {
    let bare = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let is_hex = bare.is_some() || text.contains(|c: char| c == ':' || c.is_ascii_alphabetic());
    let digits = bare.unwrap_or(text).replace(':', "");
    let read = if is_hex { u64::from_str_radix(&digits, 16) } else { digits.parse() };
    // Rust reads a sign, too.
    let read = read.ok().filter(|_| !digits.starts_with('+'));
    read.filter(|serial| i64::try_from(*serial).is_ok()).ok_or_else(|| {
        Error::usage(format!("`--serial`: `{}` is not the serial of a certificate of ours", shown(text)))
            .hint("digits alone are decimal, as sshd logs them; 0x, a colon or a letter make it hexadecimal, as OpenSSL and nginx print them")
    })
}

/// A host's name in the spelling that certificates have, or what a wildcard of TLS is.
fn host(text: &str) -> Result<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    let name = text.to_ascii_lowercase();
    principal::is_host(name.strip_prefix("*.").unwrap_or(&name))
        .then(|| name.clone())
        .ok_or_else(|| Error::usage(principal::no_host(text)))
}

/// The hash of a key, in hexadecimal.
fn key(text: &str) -> Result<String> {
    let hash = match text.strip_prefix("SHA256:") {
        Some(base64) => STANDARD_NO_PAD.decode(base64.trim_end_matches('=')).ok(),
        None => {
            let digits = text.replace(':', "").to_ascii_lowercase();
            let pairs = digits.as_bytes().chunks(2).filter(|pair| !pair.starts_with(b"+"));
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
        }
    };
    hash.filter(|hash: &Vec<u8>| hash.len() == 32).map(|hash| hex(&hash)).ok_or_else(|| {
        Error::usage(format!("`--key`: `{}` is not the SHA-256 of a key", shown(text)))
            .hint("of an SSH key `SHA256:…`, as `ssh-keygen -l` prints it; of a TLS key the hexadecimal SHA-256 of its public key in DER")
    })
}

/// What jobs are told: one line.
fn message(text: &str) -> Result<String> {
    let is_fit = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains(char::is_control);
    is_fit.then(|| text.to_owned()).ok_or_else(|| {
        Error::usage(format!(
            "`--message` is one line of at most {MAX_MESSAGE} bytes, without control characters"
        ))
    })
}

/// Says where a name is none of the policy's: it may be of one that was taken out, or mistyped.
fn warn_of_unknown(config: &Config, kind: LockKind, value: &str) {
    let of_policy =
        |names: fn(&Policy) -> Vec<String>| config.load_policy().map(|policy| names(&policy)).ok();
    let known: Option<Vec<String>> = match kind {
        // Another cluster's bots are known by its name alone.
        LockKind::Bot if value.contains('@') => {
            let root =
                |policy: &Policy| policy.clusters().map(|cluster| cluster.name.clone()).collect::<Vec<_>>();
            let is_of = |name: &String| value.ends_with(&format!("@{name}"));
            let roots = config.load_policy().map(|policy| root(&policy)).ok();
            roots.map(|roots| if roots.iter().any(is_of) { vec![value.to_owned()] } else { Vec::new() })
        }
        LockKind::Bot => of_policy(|policy| policy.tokens().map(|token| token.bot.clone()).collect()),
        LockKind::Token => of_policy(|policy| {
            policy.tokens().chain(policy.clusters()).map(|token| token.name.clone()).collect()
        }),
        LockKind::JoinMethod => {
            let names = join::names().into_iter().chain([trusted_cluster::NAME]);
            Some(names.map(str::to_owned).collect())
        }
        _ => None,
    };
    let Some(known) = known.filter(|known| !known.iter().any(|name| name == value)) else { return };
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    terminal::log(&format!("warning: the policy has no {} `{}`", kind.name(), shown(value)));
    did_you_mean(value, &names).iter().for_each(|hint| terminal::log(&format!("hint: {hint}")));
}

/// Says where what was thrown out is less than may be meant: a pattern, or a host that has nothing and may be mistyped.
fn warn_of_host(store: &dyn Store, name: &str, shut: &Shut) {
    if name.starts_with("*.") {
        terminal::log(&format!(
            "warning: `{name}` is one name here, and no pattern: what hosts below it have under their own stays good"
        ));
        terminal::log("hint: throw out each by its name; `authority hosts` lists those that were heard");
    }
    if shut.issuances.is_empty() {
        terminal::log(&format!(
            "warning: no certificate of the host `{name}` is good now, and none was revoked"
        ));
        let heard = block_on(store.hosts()).and_then(|heard| heard).unwrap_or_default();
        let names: Vec<&str> = heard.iter().map(|host| host.name.as_str()).collect();
        let hint = did_you_mean(name, &names).filter(|_| !names.contains(&name));
        hint.iter().for_each(|hint| terminal::log(&format!("hint: {}", shown(hint))));
    }
}

/// Why nothing is locked that names what never was.
fn never_issued(whom: &Whom, lock: &Lock) -> Error {
    let error = Error::usage(format!("{} was never issued", shown_exactly(&lock.words())));
    let Some(text) = &whom.serial else {
        return error.hint("`authority audit` shows the ids of what was");
    };
    let other = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => {
            u64::from_str_radix(text, 16).ok().map(|other| format!("in hexadecimal `0x{text}` is {other}"))
        }
        false => {
            lock.value.parse::<u64>().ok().map(|serial| format!("it was read as hexadecimal, {serial:x}"))
        }
    };
    other.into_iter().fold(error, Error::hint)
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `3 issuances with 5 certificates`.
fn count(shut: &Shut) -> String {
    match shut.issuances.len() {
        0 => "nothing: no certificate of theirs is good now".to_owned(),
        issuances => {
            format!("{} with {}", plural(issuances, "issuance"), plural(shut.certificates, "certificate"))
        }
    }
}

/// The same as the subject of a sentence.
fn are(shut: &Shut) -> String {
    match shut.issuances.len() {
        0 => "no certificate that is good now is".to_owned(),
        1 => format!("{} is", count(shut)),
        _ => format!("{} are", count(shut)),
    }
}

/// Which ones.
fn named(shut: &Shut) -> String {
    let ids: Vec<&str> = shut.issuances.iter().rev().take(NAMED).map(String::as_str).collect();
    let more = shut.issuances.len().saturating_sub(NAMED);
    match (ids.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("  {}\n", shown_exactly(&ids.join("\n  "))),
        (false, more) => format!("  {}\n  and {more} more\n", ids.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_and_keys_are_read_as_tools_print_them() {
        for (text, number) in [
            ("10", Some(10)),
            ("0x10", Some(16)),
            ("00:10", Some(16)),
            ("1A", Some(26)),
            ("7fffffffffffffff", Some(u64::MAX >> 1)),
            ("9223372036854775807", Some(u64::MAX >> 1)),
            ("9223372036854775808", None),
            ("8000000000000000f", None),
            ("-1", None),
            ("0x", None),
            ("x", None),
            ("1 0", None),
            ("+1", None),
            ("0x+1", None),
        ] {
            assert_eq!(serial(text).ok(), number, "{text}");
        }
        let all = "0a".repeat(32);
        for text in [
            "SHA256:CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo",
            &all,
            &all.to_uppercase(),
            &vec!["0a"; 32].join(":"),
        ] {
            assert_eq!(key(text).ok().as_deref(), Some(all.as_str()), "{text}");
        }
        for text in
            ["SHA256:", "SHA256:CgoK", "0a", "MD5:0a", &"0a".repeat(33), &"g".repeat(64), &"é".repeat(32)]
        {
            assert!(key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(message("we are looking into it").unwrap(), "we are looking into it");
        for text in ["", "a\nb", "a\u{1b}[0m", &"x".repeat(501)] {
            assert!(message(text).is_err());
        }
    }
}
