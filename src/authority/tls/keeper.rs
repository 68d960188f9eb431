//! Looking after the certificate that is served, once a second: renewed before
//! it ends, or where it is found to begin later than now; taken from files when
//! they have changed; and told of where an end comes near.

use std::sync::Arc;

use super::files::Contents;
use super::own::{Own, own};
use super::served::{CertificateWarning, CurrentCertificate, Served};
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::terminal::log;

/// How often what there is to warn of is told again, in seconds.
const TELL_EVERY: i64 = 86_400;
/// How often it is looked which certificates of hosts end soon, in seconds, since there may be many; and whether the list does.
const LOOK_AT_ENDS_EVERY: i64 = 3600;
/// How soon after a look that failed.
const LOOK_AGAIN_AFTER: i64 = 60;

/// Who looks after it.
#[derive(Debug)]
pub struct CertificateKeeper {
    authority: Arc<Authority>,
    current: Arc<CurrentCertificate>,
    /// When to renew one of our own, and what stands behind it.
    renew_at: i64,
    chain: String,
    /// What the files held when they were last looked at, and when they were last judged.
    seen: Vec<u8>,
    judged: Vec<u8>,
    /// What they hold that is worse to serve than what is served: taken once it no longer is.
    waiting: Option<Served>,
    /// Why what is served is not what it was to be.
    failure: Option<CertificateWarning>,
    told: Told,
    /// When it was last looked at the ends of what others have, and for how long that is enough.
    looked: Option<(i64, i64)>,
}

impl CertificateKeeper {
    /// Makes or reads the certificate, and says what there is to say of it. One
    /// from files is served whatever its time and name, since a proxy in front
    /// may not mind, and to start later would help nobody.
    ///
    /// # Errors
    /// Where there is none that could be served.
    pub async fn start(authority: &Arc<Authority>) -> Result<Self> {
        let (own, seen) = match Contents::read(&authority.config)? {
            Some(contents) => {
                let (served, chain) = (contents.served(&authority.config)?, String::new());
                (Own { served, renew_at: i64::MAX, chain }, contents.hash())
            }
            None => (own(authority).await?, Vec::new()),
        };
        let Own { served, renew_at, chain } = own;
        let mut keeper = Self {
            authority: Arc::clone(authority),
            current: Arc::new(CurrentCertificate::new(served)),
            renew_at,
            chain,
            judged: seen.clone(),
            seen,
            waiting: None,
            failure: None,
            told: Told::default(),
            looked: None,
        };
        keeper.tell();
        Ok(keeper)
    }

    /// What is served, now and later.
    pub fn current(&self) -> Arc<CurrentCertificate> {
        Arc::clone(&self.current)
    }

    /// Looks whether there is something to do; at once where somebody `asked`.
    pub async fn look(&mut self, asked: bool) {
        let found = match self.authority.config.tls {
            Some(_) => self.look_at_files(asked).await,
            None => self.renew().await,
        };
        match found {
            Ok(None) => {}
            Ok(Some(served)) => {
                self.failure = None;
                self.current.replace(served);
                log("certificate replaced");
            }
            Err(error) => {
                let message = format!("certificate not replaced, the old one stays: {error}");
                let hint = error.hints().join("; ");
                self.failure = Some(CertificateWarning { message, hint, is_fault: false, days_left: None });
            }
        }
        if asked {
            self.told = Told::default();
        }
        self.look_at_ends(asked).await;
        self.tell();
    }

    /// What was found last stays where that fails. A list that nobody has asked for since it became old is no news.
    async fn look_at_ends(&mut self, asked: bool) {
        let now = self.authority.clock.now();
        let is_due = |(last, enough): (i64, i64)| !(last..last.saturating_add(enough)).contains(&now);
        if !asked && !self.looked.is_none_or(is_due) {
            return;
        }
        self.looked = Some((now, LOOK_AT_ENDS_EVERY));
        if let Err(error) = self.authority.look_at_host_ends().await {
            self.looked = Some((now, LOOK_AGAIN_AFTER));
            log(&format!("warning: which certificates of hosts end soon is not known: {error}"));
        }
        if self.authority.list_ending().is_some_and(|list| list.validity.warning(now).is_some()) {
            // Why there is no other, who looks whether it is ready says.
            let _ = self.authority.revocation_lists().await;
        }
    }

    /// Ours: made again in good time, and where the clock was ahead or behind when it was made.
    async fn renew(&mut self) -> Result<Option<Served>> {
        let now = self.authority.clock.now();
        let keys = self.authority.keys();
        let is_timely = now < self.renew_at && self.current.served().validity.fault(now).is_none();
        // Before the CA's time there is no better one.
        if is_timely && self.chain == keys.tls_chain() || now < keys.tls_validity().from {
            return Ok(None);
        }
        let Own { served, renew_at, chain } = own(&self.authority).await?;
        (self.renew_at, self.chain) = (renew_at, chain);
        Ok(Some(served))
    }

    /// Theirs: read each second, and judged when two looks saw the same, since
    /// certificate and key are seldom written in one go.
    async fn look_at_files(&mut self, asked: bool) -> Result<Option<Served>> {
        let authority = Arc::clone(&self.authority);
        let read = tokio::task::spawn_blocking(move || Contents::read(&authority.config)).await;
        let contents = read.map_err(Error::internal)?.inspect_err(|_| self.judged.clear())?;
        let Some(contents) = contents else { return Ok(None) };
        let hash = contents.hash();
        let stands_still = std::mem::replace(&mut self.seen, hash.clone()) == hash;
        if asked || stands_still && self.judged != hash {
            self.judged = hash;
            self.waiting = None;
            self.waiting = Some(contents.served(&self.authority.config)?);
        }
        let now = self.authority.clock.now();
        let badness = self.current.served().badness(now);
        match &self.waiting {
            Some(worse) if worse.badness(now) > badness => {
                let why = worse.warnings(now).into_iter().next().map(|why| why.message).unwrap_or_default();
                Err(Error::usage(why).hint("it is taken as soon as it is no worse than the old one"))
            }
            _ => Ok(self.waiting.take()),
        }
    }

    /// Says what there is to warn of.
    fn tell(&mut self) {
        let now = self.authority.clock.now();
        let warnings = self.current.log_warnings(&self.authority);
        let warnings: Vec<_> = self.failure.iter().cloned().chain(warnings).collect();
        if self.told.is_news(&warnings, now) {
            for warning in &warnings {
                log(format!("warning: {}\n{}", warning.told(), warning.hint).trim_end());
            }
        }
    }
}

/// What was told, and when.
#[derive(Debug, Default)]
struct Told {
    warnings: Vec<CertificateWarning>,
    at: i64,
}

impl Told {
    /// Whether these are to be told: when one is new, and once a day.
    fn is_news(&mut self, warnings: &[CertificateWarning], now: i64) -> bool {
        // A clock that went back starts another day.
        let is_today = (self.at..self.at.saturating_add(TELL_EVERY)).contains(&now);
        let is_known =
            warnings.iter().all(|warning| self.warnings.iter().any(|known| known.is_same(warning)));
        self.warnings = warnings.to_vec();
        if is_today && is_known {
            return false;
        }
        self.at = now;
        !warnings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_to_say_is_said_at_once_and_daily() {
        let warning = |message: &str| CertificateWarning {
            message: message.to_owned(),
            hint: String::new(),
            is_fault: false,
            days_left: None,
        };
        let (one, other, mut told) = (warning("one"), warning("other"), Told::default());
        for (now, warnings, is_news) in [
            (1_000_000, vec![], false),
            (1_000_001, vec![one.clone()], true),
            (1_000_002, vec![one.clone()], false),
            (1_000_003, vec![one.clone(), other.clone()], true),
            (1_000_004, vec![one.clone()], false),
            (1_000_005, vec![one.clone(), other], true),
            (1_000_004 + TELL_EVERY, vec![one.clone()], false),
            (1_000_005 + TELL_EVERY, vec![one.clone()], true),
            (1_000_006 + TELL_EVERY, vec![one.clone()], false),
            (7, vec![one], true),
        ] {
            assert_eq!(told.is_news(&warnings, now), is_news, "{now}");
        }
    }
}
