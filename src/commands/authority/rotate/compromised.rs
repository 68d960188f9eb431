//! What it means that somebody else has a CA's key: what ends at once, what cannot, and in which order; said before it is done.

use crate::authority::ca::{CaKey, CaKind};
use crate::authority::store::Store;
use crate::clock::{LEEWAY, rfc3339};
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal;
use crate::text::counted;

/// Says it, of the CAs that are revoked by it.
pub(super) fn tell(store: &dyn Store, kind: CaKind, all: &[CaKey], now: i64) -> Result<()> {
    let of: Vec<_> = all.iter().filter(|key| key.state.is_trusted()).collect();
    let words = of.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(" and ");
    let what = if kind == CaKind::Federation { "key" } else { "CA" };
    terminal::log(&format!("revokes every {what} of {}: {words}; a new one signs at once", kind.name()));
    for key in of {
        tell_live(store, key, now)?;
    }
    for line in order(kind) {
        terminal::log(line);
    }
    Ok(())
}

fn tell_live(store: &dyn Store, key: &CaKey, now: i64) -> Result<()> {
    // One that is not written down yet has all that name none; those are counted once it is.
    if key.number == 0 {
        return Ok(());
    }
    let live = block_on(store.live(key.number, now.saturating_sub(LEEWAY)))??;
    let count = usize::try_from(live.count).unwrap_or(usize::MAX);
    if count > 0 {
        let (count, end) = (counted(count, "certificate"), rfc3339(live.last_end));
        terminal::log(&format!(
            "  {count} of {} are good for nothing from then on, the last would live until {end}",
            key.id
        ));
    }
    Ok(())
}

/// What ends when, in the order in which it is to be seen to.
fn order(kind: CaKind) -> &'static [&'static str] {
    match kind {
        CaKind::SshUser => &[
            "at once: nothing is signed by it, and its key is in the revocation list of SSH",
            "within a second: hosts that watch refuse every login by it, and end sessions where they are told to",
            "with their next refresh: hosts that do not watch; see them in `machine-id authority hosts`",
            "not by itself: hosts that fetch nothing: put the new `export ssh-user-ca` there, and the old key into RevokedKeys",
            "jobs that run get other certificates when they renew; those that do not must be started again",
        ],
        CaKind::SshHost => &[
            "at once: nothing is signed by it; jobs that begin from now on refuse what it has signed",
            "not by itself: jobs that run believe it until their certificates are renewed, people until their known_hosts is changed",
            "then: sign each host's certificate anew (`sign-host`); those that join renew it themselves, and are refused until then",
        ],
        CaKind::Tls => &[
            "at once: nothing is signed by it, and this authority serves a certificate of the new one",
            "within a second: servers that are kept by `host watch` and connected now trust the new one alone, once they have read their files again",
            "not by itself: hosts that are not connected now, those that refresh too: they let in whoever has the stolen key until `host refresh` has run once with the new `export tls-ca-pin`, and end with 5 until then",
            "not by itself: servers with a copied ca.crt: nginx, PostgreSQL (`ssl_ca_file`, reload), Redis (`tls-ca-cert-file`, restart), MariaDB (`ssl_ca`, FLUSH SSL), kube-apiserver (`--client-ca-file`): put the new `export tls-ca` there",
            "then: sign each server's certificate anew (`sign-server`); jobs with --ca-pin or --ca-file of the old one end with 5 until they have the new `export tls-ca-pin`",
        ],
        CaKind::Federation => &[
            "at once: nothing is signed by it, and neither it nor the one published ahead is in the key set",
            "once they have fetched the set again: clouds and leaf clusters that fetch it refuse its tokens; they may keep a set for five minutes, and some keep it longer",
            "not by itself: clouds and leaf clusters with a copy of the set: they believe the thief, and no token of ours, until they have `export federation-jwks`",
            "not by itself: what was let in by such a token; clouds have sessions of their own, which are ended there",
            "jobs that run get other tokens when they renew",
        ],
        CaKind::Statement => &[
            "at once: nothing is stated by it; its successor is signed by the TLS CA, and hosts that watch take it within a second",
            "not by itself: hosts that were told `--statement-key`, and are new: give them the new `export statement-key`",
            "not by itself: hosts that heard the thief first, and take the truth for old: they begin anew (docs/rotation.md)",
            "a thief of it alone adds no CA and takes back no revocation: hosts want the word of a CA for that",
        ],
    }
}
