//! Looking after the certificate that is served, once a second: renewed before
//! it ends, or where it is found to begin later than now; taken from files when
//! they have changed; and told of where an end comes near.

use std::sync::Arc;

use super::files::Contents;
use super::own::own;
use super::served::{CertificateWarning, CurrentCertificate, Served};
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::terminal::log;

/// How often what there is to warn of is told again, in seconds.
const TELL_EVERY: i64 = 86_400;

/// Who looks after it.
#[derive(Debug)]
pub struct CertificateKeeper {
    authority: Arc<Authority>,
    current: Arc<CurrentCertificate>,
    /// When to renew one of our own.
    renew_at: i64,
    /// What the files held when they were last looked at, and when they were last judged.
    seen: Vec<u8>,
    judged: Vec<u8>,
    /// What they hold that is worse to serve than what is served: taken once it no longer is.
    waiting: Option<Served>,
    /// The last failure, which is told once.
    failed: String,
    told: Vec<CertificateWarning>,
    told_at: i64,
}

impl CertificateKeeper {
    /// Makes or reads the certificate, and says what there is to say of it. One
    /// from files is served whatever its time and name, since a proxy in front
    /// may not mind, and to start later would help nobody.
    ///
    /// # Errors
    /// Where there is none that could be served.
    pub async fn start(authority: &Arc<Authority>) -> Result<Self> {
        let (served, renew_at, seen) = match Contents::read(&authority.config)? {
            Some(contents) => (contents.served(&authority.config)?, i64::MAX, contents.hash()),
            None => own(authority).await.map(|(served, renew_at)| (served, renew_at, Vec::new()))?,
        };
        let mut keeper = Self {
            authority: Arc::clone(authority),
            current: Arc::new(CurrentCertificate::new(served)),
            renew_at,
            judged: seen.clone(),
            seen,
            waiting: None,
            failed: String::new(),
            told: Vec::new(),
            told_at: i64::MIN,
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
        let done = match self.authority.config.tls {
            Some(_) => self.look_at_files(asked).await,
            None => self.renew().await,
        };
        match done {
            Ok(()) => self.failed.clear(),
            Err(error) if asked || error.to_string() != self.failed => {
                self.failed = error.to_string();
                log(&format!("certificate not replaced, the old one stays: {error}"));
                error.hints().iter().for_each(|hint| log(&format!("  {hint}")));
            }
            Err(_) => {}
        }
        self.tell();
    }

    /// Ours: made again in good time, and where the clock was ahead or behind when it was made.
    async fn renew(&mut self) -> Result<()> {
        let now = self.authority.clock.now();
        let is_good = now < self.renew_at && self.current.served().validity.fault(now).is_none();
        // Before the CA's time there is no better one.
        if is_good || now < self.authority.keys.tls_validity().from {
            return Ok(());
        }
        let (served, renew_at) = own(&self.authority).await?;
        self.renew_at = renew_at;
        self.take(served);
        Ok(())
    }

    /// Theirs: read each second, and judged when two looks saw the same, since
    /// certificate and key are seldom written in one go.
    async fn look_at_files(&mut self, asked: bool) -> Result<()> {
        let authority = Arc::clone(&self.authority);
        let read = tokio::task::spawn_blocking(move || Contents::read(&authority.config)).await;
        let Some(contents) = read.map_err(Error::internal)?? else { return Ok(()) };
        let hash = contents.hash();
        let stands_still = std::mem::replace(&mut self.seen, hash.clone()) == hash;
        if asked || stands_still && self.judged != hash {
            self.judged = hash;
            self.waiting = None;
            self.waiting = Some(contents.served(&self.authority.config)?);
        }
        let now = self.authority.clock.now();
        let Some(new) = &self.waiting else { return Ok(()) };
        if new.badness(now) > self.current.served().badness(now) {
            let why = new.warnings(now).into_iter().next();
            let why = why.map(|why| why.message).unwrap_or_default();
            return Err(Error::usage(why).hint("it is taken as soon as it is no worse than the old one"));
        }
        if let Some(new) = self.waiting.take() {
            self.take(new);
        }
        Ok(())
    }

    fn take(&self, served: Served) {
        self.current.replace(served);
        log("certificate replaced");
    }

    /// Says what there is to warn of: when it is new, and once a day.
    fn tell(&mut self) {
        let now = self.authority.clock.now();
        let warnings = self.current.warnings(&self.authority);
        // A clock that went back starts another day.
        let is_today = (self.told_at..self.told_at.saturating_add(TELL_EVERY)).contains(&now);
        if warnings != self.told || !is_today {
            for CertificateWarning { message, hint, .. } in &warnings {
                log(&format!("warning: {message}"));
                log(&format!("  {hint}"));
            }
            (self.told, self.told_at) = (warnings, now);
        }
    }
}
