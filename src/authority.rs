//! The authority: policy in, certificates out, everything recorded.
//!
//! One exchange runs through [`enroll`]: `http → join → policy → issue →
//! store → keys`, and back.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ca::CaSet;
use store::cas::Heard;
use store::replicas::{CAS, LACKS, OLD_TRUST, ROOT_OF, Replica};
use validity::Ending;

use tokio::task::spawn_blocking;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::join::issuers::Issuers;
use crate::net;
use crate::random;

pub mod assertion;
pub mod audit;
pub mod ca;
pub mod config;
pub mod connections;
pub mod discovery;
pub mod enroll;
pub mod head;
pub mod host_proof;
pub mod hosts;
pub mod http;
pub mod issue;
pub mod keys;
pub mod limits;
mod old_trust;
pub mod policy;
pub mod policy_files;
mod policy_watch;
pub mod replicas;
pub mod revocation;
pub mod revoke;
pub mod rotation;
pub mod serve;
mod served_list;
pub mod statements;
pub mod store;
pub mod tls;
pub mod validity;

/// How often it is looked for a CA key that is not to be had: each time a service or a token may be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How much longer than they must be used proofs are held, in seconds: an
/// exchange under way may have found its token's time good a while ago.
const PRUNE_MARGIN: i64 = 120;

/// What the operator should hear of one that is ready; or why it is not, for all who asked meanwhile.
type Ready = Result<(Option<String>, Ending), Arc<Error>>;

/// What was known of the CAs when it was looked last.
#[derive(Debug, Default)]
pub struct Looked {
    set: Option<i64>,
    lacks: Vec<keys::Lack>,
    /// When it was last tried to open those that are not to be had.
    tried: Option<Instant>,
}

/// Everything that an authority is while it runs.
#[derive(Debug)]
pub struct Authority {
    config: config::Config,
    keys: RwLock<Arc<keys::CaKeys>>,
    store: Box<dyn store::Store>,
    policy: RwLock<Arc<policy::Policy>>,
    watch: Mutex<policy_files::Watch>,
    begun: Instant,
    issuers: Issuers,
    clock: Clock,
    refusals: limits::Refusals,
    issuances: limits::Issuances,
    lists: revocation::ListCache,
    revoked_hosts: revocation::HostListCache,
    hosts: hosts::Heard,
    old_trust: old_trust::OldTrust,
    statements: statements::Statements,
    /// Names this run among authorities that share the store.
    id: String,
    replicas: replicas::Replicas,
    /// When it was last seen whether it is ready, and what was to be said then.
    ready: tokio::sync::Mutex<Option<(Instant, Ready)>>,
    /// Why the store's mark was not left last time.
    unmarked: Mutex<Option<String>>,
}

impl Authority {
    /// From a data directory.
    ///
    /// # Errors
    /// Where its configuration, keys, store or policy cannot be used; every
    /// mistake of the policy is told, which is waited for where it is being written.
    pub async fn open(data_dir: &Path, clock: Clock) -> Result<Self> {
        let config = config::Config::load(data_dir)?;
        store::engine::wait(&config.store, &config.store_key()).await?;
        let store = store::engine::open(&config.store, &config.store_key(), clock.now()).await?;
        let keys = config.open_keys(&Arc::new(store.cas().await?))?;
        if let Some(lack) = keys.lacks().iter().find(|lack| lack.signs) {
            return Err(Error::usage(lack.words())
                .hint("put it back from the backup: what it has signed is good for nothing without it"));
        }
        let (policy, watch) = config.policy_files().wait()?;
        config.check_policy(&policy)?;
        Ok(Self { watch: Mutex::new(watch), ..Self::assemble(config, keys, store, policy, clock)? })
    }

    /// From its parts, as [`Authority::open`] puts them together.
    pub fn assemble(
        config: config::Config,
        keys: keys::CaKeys,
        store: Box<dyn store::Store>,
        policy: policy::Policy,
        clock: Clock,
    ) -> Result<Self> {
        let client = net::issuer_client(config.issuer_ca_file.as_ref(), config.owner)?;
        let issuers = Issuers::new(client, clock.clone());
        let issuances = limits::Issuances::new(config.quotas);
        Ok(Self {
            config,
            keys: RwLock::new(Arc::new(keys)),
            store,
            policy: RwLock::new(Arc::new(policy)),
            watch: Mutex::default(),
            begun: Instant::now(),
            issuers,
            clock,
            refusals: limits::Refusals::default(),
            issuances,
            lists: revocation::ListCache::default(),
            revoked_hosts: revocation::HostListCache::default(),
            hosts: hosts::Heard::default(),
            old_trust: old_trust::OldTrust::default(),
            statements: statements::Statements::default(),
            id: random::hex::<16>()?,
            replicas: replicas::Replicas::default(),
            ready: tokio::sync::Mutex::default(),
            unmarked: Mutex::default(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &config::Config {
        &self.config
    }

    /// The name of its suite, by which jobs make their keys.
    pub fn suite(&self) -> &'static str {
        self.config.suite.name()
    }

    /// The CA keys as they are now.
    pub fn keys(&self) -> Arc<keys::CaKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Arc<policy::Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears of what others who share the store have changed, and which CAs there are where they are others by now.
    ///
    /// # Errors
    /// Where the store cannot be read, or its CAs are not as an authority left them: those of before stay, and nothing is
    /// recorded that they would sign.
    pub async fn hear(&self) -> Result<Heard> {
        let heard = self.store.hear().await?;
        let of = heard.cas;
        if of != self.keys().set().number {
            self.open_keys(Arc::new(self.store.cas().await?)).await?;
        }
        Ok(heard)
    }

    /// Opens the keys of a set, and signs by them from now on.
    async fn open_keys(&self, set: Arc<CaSet>) -> Result<()> {
        let source = self.config.key_source()?;
        let opened = spawn_blocking(move || keys::CaKeys::open(&source, &set)).await;
        let opened = Arc::new(opened.map_err(Error::internal)??);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Of two that open them, the later set stays.
        if opened.set().number >= keys.set().number {
            *keys = opened;
        }
        Ok(())
    }

    /// Hears of the CAs, and looks again for keys that are not to be had; what the log is to say, where they are others since
    /// it was `looked` last.
    pub async fn look_at_keys(&self, looked: &mut Looked) -> Result<Vec<String>> {
        self.hear().await?;
        let is_whole = self.keys().lacks().is_empty() && self.keys().wants_root().is_none();
        if !is_whole && looked.tried.is_none_or(|tried| tried.elapsed() >= LOOK_AGAIN) {
            looked.tried = Some(Instant::now());
            self.open_keys(Arc::clone(self.keys().set())).await?;
        }
        let keys = self.keys();
        let (number, lacks) = (keys.set().number, keys.lacks().to_vec());
        let mut news = Vec::new();
        if looked.lacks != lacks {
            news.extend(lacks.iter().map(|lack| format!("warning: {}", lack.words())));
            looked.lacks = lacks;
        }
        let before = looked.set.replace(number);
        // Whoever opened them as they were before may have put one back meanwhile that had come through the store.
        if before == Some(number) && !keys.is_local() {
            return Ok(news);
        }
        // What was to be taken away when it ended here the last time, too.
        let source = self.config.key_source()?;
        let told = spawn_blocking(move || keys.tidy(&source)).await.map_err(Error::internal)?;
        news.extend(told.into_iter().map(|told| told.unwrap_or_else(|error| format!("warning: {error}"))));
        if before.is_some_and(|before| before != number) {
            news.push("other CAs from now on: `machine-id authority rotate status` says which".to_owned());
            self.statements.wake();
        }
        Ok(news)
    }

    /// What to say of a store that was put back from a copy, while that matters.
    pub fn restored_warning(&self) -> Option<String> {
        store::restored_warning(self.store.as_ref(), self.clock.now())
    }

    /// What to say of rows of the store that no authority left as they are.
    pub fn tampered(&self) -> Option<String> {
        self.store.tampered()
    }

    /// That a private key is not to be had; which, the log says.
    pub fn lacking(&self) -> Option<String> {
        let lacks = !self.keys().lacks().is_empty();
        lacks.then(|| "the private key of a CA is not to be had: the log names it".to_owned())
    }

    /// Leaves the store's mark, and looks whether it is in its place. What is in the way, where that is news:
    /// nothing at all, where something was before.
    pub async fn mark(&self) -> Option<Option<String>> {
        let trouble = self.store.mark().await.err();
        // The words of one outage change: it is told as it begins.
        let is_away = trouble.as_ref().is_some_and(store::is_away);
        let trouble = trouble.map(|error| error.to_string());
        let mut before = self.unmarked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = trouble != *before && !(is_away && before.is_some());
        before.clone_from(&trouble);
        is_news.then_some(trouble)
    }

    /// Why the store's mark says less than it should: a copy that is put back would not be known.
    pub fn unmarked(&self) -> Option<String> {
        self.unmarked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was revoked, as servers read it.
    pub async fn revocation_lists(&self) -> Result<Arc<revocation::Lists>> {
        Ok(self.lists.lists(self.store.as_ref(), &self.keys(), self.clock.now(), false).await?.0)
    }

    /// The host certificates that are revoked, as jobs are given them: a KRL in base64.
    pub async fn revoked_hosts(&self) -> Result<Arc<str>> {
        self.revoked_hosts.list(self.store.as_ref(), &self.keys(), self.clock.now()).await
    }

    /// Notes that a job was answered which says that it trusts those TLS CAs, or says nothing.
    fn note_trust(&self, said: Option<&str>) {
        // With a certificate from files it may know neither, and need not.
        if let (Some(new), None) = (self.keys().newer_tls_ca(), &self.config.tls) {
            self.old_trust.note(said, &new, self.clock.now());
        }
    }

    /// Has the store hear of the hosts that have proved which they are.
    pub async fn tell_hosts(&self) -> Result<()> {
        let hosts = self.hosts.take(self.clock.instant());
        if hosts.is_empty() {
            return Ok(());
        }
        self.store.hear_of(hosts.clone()).await.inspect_err(|_| self.hosts.put_back(hosts))
    }

    /// What it states of itself to its servers now.
    pub async fn statement(&self) -> Result<Arc<statements::Stated>> {
        self.stated(statements::PRESENT).await
    }

    async fn stated(&self, age: Range<i64>) -> Result<Arc<statements::Stated>> {
        let keys = self.keys();
        let of = (self.store.as_ref(), &keys, &self.lists);
        self.statements.present(of, &self.config.cluster, self.clock.now(), age).await
    }

    /// Tells those who watch it what is new, and where it is `due` that nothing is; whether it did.
    pub async fn tell_watchers(&self, due: bool) -> Result<bool> {
        self.hear().await?;
        let stated = self.stated(if due { 0..0 } else { 0..i64::MAX }).await?;
        Ok(self.statements.tell(&stated, due))
    }

    /// What this authority says of itself to those that share the store; `name` is its machine and where it listens.
    fn replica(&self, name: &str) -> Result<Replica> {
        let config::Config { cluster, public_url, quotas, .. } = &self.config;
        let same = format!("{}\n{cluster}\n{public_url}\n{quotas:?}", self.policy().text);
        Ok(Replica {
            id: self.id.clone(),
            name: name.to_owned(),
            has: self.has(),
            keys: self.keys().names()?,
            policy: policy_files::hash(&same),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seen: 0,
        })
    }

    /// How far it is with a rotation, for whoever goes on with it.
    fn has(&self) -> Vec<String> {
        let keys = self.keys();
        let lacks = keys.lacks().iter().map(|lack| format!("{LACKS}{}", lack.name));
        let next = keys.wants_root().map(|(_, next)| format!("{LACKS}{ROOT_OF}{next}"));
        let new = keys.newer_tls_ca();
        let old = new.map(|new| format!("{OLD_TRUST}{}", self.old_trust.count(&new, self.clock.now())));
        [format!("{CAS}{}", keys.set().number)].into_iter().chain(lacks).chain(next).chain(old).collect()
    }

    /// Takes its place among those that share the store; what the log is to say of the statement key, which the first that
    /// starts makes where all are from before there was one.
    ///
    /// # Errors
    /// Where it must not: its CA keys are others.
    pub async fn join(&self, name: &str) -> Result<Option<String>> {
        self.replicas.join(self.store.as_ref(), self.replica(name)?).await?;
        match self.keys().with_later_keys(self.config.suite) {
            Ok((_, made)) if made.is_empty() => Ok(None),
            Ok((keys, made)) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                // Of two at once, the store takes one.
                self.replicas.join(self.store.as_ref(), self.replica(name)?).await?;
                let made = made.join(", ");
                Ok(Some(format!(
                    "made the keys {made} beside the CA keys: back them up, and copy them to the other authorities of the store"
                )))
            }
            // Where keys are somebody else's to put there.
            Err(error) => Ok(Some(format!(
                "warning: without a statement key nothing is stated to servers, and without a federation key nothing is vouched for elsewhere: {error}"
            ))),
        }
    }

    /// Says that it is still there; what the log is to say of the others.
    pub async fn stay(&self, name: &str) -> Result<Vec<String>> {
        self.replicas.stay(self.store.as_ref(), self.replica(name)?).await
    }

    /// Tells what was used of limits since it did so last, and hears what all have.
    pub async fn share(&self) -> Result<()> {
        let now = Instant::now();
        let spent = [self.refusals.spent(now), self.issuances.spent(now)].concat();
        let levels = self.store.spend(spent.clone()).await?;
        let now = Instant::now();
        self.refusals.heard(&spent, &levels, now);
        self.issuances.heard(&spent, &levels, now);
        Ok(())
    }

    /// Looks at the policy's files, and takes what is new once it stands still;
    /// where it is `asked` for, even what seems to be what it was. The old
    /// policy stays where that fails.
    pub fn look_at_policy(&self, asked: bool) -> policy_files::Look {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let look = self.config.policy_files().look(&mut watch, self.begun, asked);
        if let policy_files::Look::Taken(policy) = &look {
            if let Err(error) = self.config.check_policy(policy) {
                return policy_files::Look::Refused(error);
            }
            *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(policy);
        }
        look
    }

    /// Tries what an exchange needs: a record of its size, and a key that
    /// signs. What the operator should hear though all is well, and when the list ends.
    pub async fn ready(&self) -> Result<(Option<String>, Ending)> {
        self.store.ready().await?;
        self.keys().probe().await?;
        let lists = self.revocation_lists().await?;
        Ok((lists.alarm(), lists.ending()))
    }

    /// Forgets what was remembered for a time that is up.
    pub async fn forget(&self) -> Result<()> {
        let now = self.clock.now();
        self.store.prune(now.saturating_sub(PRUNE_MARGIN)).await?;
        match self.config.retain {
            Some(retain) => self.store.let_go(now.saturating_sub(retain), now, false).await.map(drop),
            None => Ok(()),
        }
    }
}
