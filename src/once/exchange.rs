//! One exchange: a proof from the platform and a connection to the authority
//! at the same time, then the request, again while that can help.
//!
//! Which keys a job is to have, where nobody says, the authority's suite tells, and the proof may be bound to them. So they are
//! made by the usual suite first; an authority of another says so as the connection is opened, while the platform is at
//! work, or else refuses them before it looks at the proof. Others are made then.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::destination::hosts::Hosts;
use crate::destination::manifest::MissingOutput;
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::prove::{Job, Presented, Storage};
use crate::join::source::TokenSource;
use crate::net::Platform;
use crate::once::exchange::authority::{Asker, Authority, Place, Question};
use crate::once::exchange::check::{Issuance, check};
use crate::once::exchange::keys::JobKeys;
use crate::once::exchange::request::{output_request, signature_of};
use crate::once::run::Run;
use crate::suite::Suite;
use crate::text::shown_long;
use crate::wire::{ExchangeRequest, LeafRequest, OutputResponse, Proof, binding, bound_audience};

pub(crate) mod authority;
pub(crate) mod check;
pub mod keys;
mod leaves;
pub(crate) mod refusal;
mod request;

/// How long a connection to the authority is waited for once the proof is
/// there. The request makes its own where that one hangs.
const WARM: Duration = Duration::from_secs(2);

/// What one authority has given.
pub(crate) struct Granted {
    pub place: Place,
    /// The hosts that its host CAs are believed for.
    pub hosts: Hosts,
    pub issuance: Issuance,
}

/// What a run has got.
pub(crate) struct Obtained {
    /// Of the authority that the job joins; without outputs where leaf clusters have them all.
    pub root: Granted,
    pub leaves: Vec<Granted>,
    pub missing: Vec<MissingOutput>,
    /// Why they are, by leaf cluster.
    failures: Vec<Error>,
}

impl Obtained {
    /// What each authority has given.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Granted> {
        std::iter::once(&self.root).chain(&self.leaves)
    }

    /// What an output has got, by its name, and from whom.
    pub(crate) fn of(&self, output: &str) -> Option<(&Granted, &OutputResponse)> {
        self.all().find_map(|granted| {
            let answer = granted.issuance.response.outputs.iter().find(|answer| answer.name == output)?;
            Some((granted, answer))
        })
    }

    /// The keys that have certificates now, and these.
    pub(crate) fn issued<'k>(&self, keys: &'k [JobKeys]) -> (Vec<&'k JobKeys>, Vec<&OutputResponse>) {
        keys.iter().filter_map(|keys| Some((keys, self.of(&keys.output)?.1))).unzip()
    }

    /// When the first certificate expires, in seconds since 1970 and as the authority says it.
    pub(crate) fn expires_at(&self) -> (i64, &str) {
        let ends = self.all().filter(|granted| !granted.issuance.response.outputs.is_empty());
        let ends =
            ends.map(|granted| (granted.issuance.expires_at, granted.issuance.response.expires_at.as_str()));
        let root = &self.root.issuance;
        ends.min().unwrap_or((root.expires_at, &root.response.expires_at))
    }

    /// Why this is as good as nothing: no output is there, or not each that must be.
    pub(crate) fn failure(&mut self, require_all: bool) -> Option<Error> {
        let has_any = self.all().any(|granted| !granted.issuance.response.outputs.is_empty());
        if self.failures.is_empty() || (has_any && !require_all) {
            return None;
        }
        let mut failures = std::mem::take(&mut self.failures);
        // Whatever is not a refusal may be otherwise the next time, and is what the whole is then.
        failures.sort_by_key(|error| error.kind() == Kind::Refused);
        Error::together(failures)
    }

    /// With what leaf clusters gave before, and have not given again, as long as it lasts.
    #[must_use]
    pub(crate) fn keeping(mut self, earlier: Self, now: i64) -> Self {
        for leaf in earlier.leaves {
            let is_new = self.leaves.iter().any(|new| new.place.leaf == leaf.place.leaf);
            if !is_new && leaf.issuance.expires_at > now {
                self.missing.retain(|missing| Some(&missing.at) != leaf.place.leaf.as_ref());
                self.leaves.push(leaf);
            }
        }
        self
    }
}

/// Everything that exchanges of one run share.
pub(crate) struct Exchanger<'a> {
    run: Run<'a>,
    authority: Authority<'a>,
    audience: String,
    /// What is asked for of leaf clusters.
    leaves: Vec<LeafRequest>,
    /// The hash of the last token that was handed over.
    handed: Cell<Option<[u8; 32]>>,
    /// The last issuance.
    issued: RefCell<Option<String>>,
}

impl<'a> Exchanger<'a> {
    pub(crate) fn new(run: Run<'a>) -> Self {
        let bound: Vec<_> = run.issued_by(None).map(|(_, keys)| keys.bound()).collect();
        let leaves = leaves::requests(run);
        let Run { settings, client, .. } = run;
        let place = Place {
            leaf: None,
            url: settings.authority.clone(),
            trust: settings.trust.clone(),
            client: client.clone(),
        };
        Self {
            run,
            audience: bound_audience(&place.url, &binding(&bound, &leaves)),
            authority: Authority::new(place, run.progress),
            leaves,
            handed: Cell::new(None),
            issued: RefCell::new(None),
        }
    }

    /// Gets certificates before the deadline.
    ///
    /// # Errors
    /// Among others [`authority::OtherSuite`], and nothing is used up then.
    pub(crate) async fn exchange(&self, deadline: Instant) -> Result<Obtained> {
        let issuance = loop {
            if let Some(issuance) = self.with_one_proof(deadline).await? {
                break issuance;
            }
            self.run.progress.line("the proof has aged without an answer, and makes room for another");
        };
        self.with_leaves(issuance, deadline).await
    }

    /// Asks the leaf clusters too, with the authority's word.
    async fn with_leaves(&self, mut issuance: Issuance, deadline: Instant) -> Result<Obtained> {
        let run = self.run;
        let answers = std::mem::take(&mut issuance.response.leaves);
        let asked = (self.leaves.as_slice(), issuance.response.cluster.as_str());
        let (leaves, hosts) = leaves::believed(answers, asked, &run.settings.leaves)?;
        let now = self.authority.time().unwrap_or(self.authority.clock.now());
        // What the authority has given is not to end while one of them is waited for.
        let life = u64::try_from(issuance.expires_at - now).unwrap_or(0);
        let patience = Instant::now() + Duration::from_secs((life / 3).max(1));
        let answered = leaves::ask_all(run, leaves, (asked.1, now), deadline.min(patience)).await;
        let mut obtained = Obtained {
            root: Granted { place: self.authority.place.clone(), hosts: Hosts::AllBut(hosts), issuance },
            leaves: Vec::new(),
            missing: Vec::new(),
            failures: Vec::new(),
        };
        for answer in answered {
            match answer {
                Ok(leaves::OfLeaf { place, hosts, issuance }) => {
                    obtained.leaves.push(Granted { place, hosts: Hosts::Only(hosts), issuance });
                }
                Err(failed) => {
                    run.progress.warning(&failed.said(run));
                    obtained.missing.extend(failed.missing(run));
                    obtained.failures.push(failed.into_error());
                }
            }
        }
        Ok(obtained)
    }

    /// Gets certificates, or nothing where the proof is too old for another attempt and there may be a newer one.
    async fn with_one_proof(&self, deadline: Instant) -> Result<Option<Issuance>> {
        let progress = self.run.progress;
        let Presented { proof, lasts, settle } = self.proof(deadline).await?;
        let good_until = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
        for signature in proof.0.values().filter_map(|value| signature_of(value.expose())) {
            progress.mask(signature);
        }
        let request = self.request(proof);
        // Not `serde_json::Value`, which would leave copies of the token behind.
        let body =
            Zeroizing::new(serde_json::to_vec(&request).context(Kind::Internal, "cannot write the request")?);
        drop(request);
        let asker = Asker {
            audience: self.run.settings.source.is_none().then_some(self.audience.as_str()),
            one_token: self.has_one_token(),
            method: Some(self.run.settings.method),
        };
        let question = Question { body: &body, suite: self.suite_of_keys(), asker };
        let mut said = false;
        let gives_up = async |time| {
            // The same proof gets the same answer, a new one new certificates: so only where the old one is of no more use.
            good_until.is_some_and(|end| Instant::now() + time >= end) && self.makes_room(&mut said).await
        };
        let answer = match self.authority.post(&question, deadline, gives_up).await {
            Ok(Some(answer)) => answer,
            unanswered => {
                if let Some(settle) = settle.filter(|_| !self.authority.may_have_accepted())
                    && let Err(why) = settle(None)
                {
                    progress.step(&format!("what was not sent stays accounted for: {why}"));
                }
                return unanswered.map(|_| None);
            }
        };
        let keys: Vec<&JobKeys> = self.run.issued_by(None).map(|(_, keys)| keys).collect();
        let issuance = check(answer, &keys, &self.run.settings.authority)?;
        let tokens = issuance.response.outputs.iter().filter_map(|output| output.jwt.as_ref());
        for signature in tokens.filter_map(|token| signature_of(token.expose())) {
            progress.mask(signature);
        }
        let id = &issuance.response.issuance_id;
        // The authority answers a request that it knows as it did then: a lost reply is asked for again so.
        if self.issued.replace(Some(id.clone())).as_ref() == Some(id) {
            let cause = "the proof is the one of before, and buys the same certificates";
            return Err(Error::new(Kind::Proof, cause).hint("the platform gives this job no other just now"));
        }
        if let Some(settle) = settle {
            settle(Some(&issuance.response))?;
        }
        let clock_warning = refusal::clock_warning(self.authority.time(), self.authority.clock.now());
        let warnings = issuance.response.warnings.iter().map(|warning| shown_long(warning));
        clock_warning.into_iter().chain(warnings).for_each(|warning| progress.warning(&warning));
        Ok(Some(issuance))
    }

    async fn proof(&self, deadline: Instant) -> Result<Presented> {
        let Run { settings, env, progress, .. } = self.run;
        if let Some(source) = &settings.source {
            let token = source.read(env, deadline).await?;
            self.handed.set(Some(TokenSource::fingerprint(&token)));
            return Ok(Presented::handed_over(
                token,
                self.authority.time().unwrap_or(self.authority.clock.now()),
            ));
        }
        let method = settings.method;
        // Its connections go with it, and the token that they brought.
        let platform = Platform::default();
        let job = Job {
            env,
            authority: &settings.authority,
            join_token: &settings.token,
            storage: settings.storage.folder.as_ref().map(|folder| -> &dyn Storage { folder }),
            registration_secret: settings.storage.secret.as_ref(),
            audience: &self.audience,
            platform: &platform,
            deadline,
            say: &|text| progress.step(text),
            warn: &|text| progress.warning(text),
        };
        let prove = async {
            tokio::time::timeout_at(deadline.into(), (method.prove)(&job)).await.unwrap_or_else(|_| {
                let error = Error::new(Kind::Unreachable, "time is up")
                    .context(format!("{} gave no proof", method.name));
                Err(error.hint("--timeout waits longer"))
            })
        };
        tokio::pin!(prove);
        let warm = self.authority.open_connection(deadline);
        tokio::pin!(warm);
        // A failed proof ends this at once; a good one waits for the connection,
        // which the request needs anyway. The platform is asked first, since it
        // takes longer: this side's half of the other handshake fits into its time.
        tokio::select! {
            biased;
            proof = &mut prove => {
                let proof = proof?;
                let _ = tokio::time::timeout(WARM, warm).await;
                // What is accounted for is refused by the authority, and taken back.
                if proof.settle.is_none() {
                    self.authority.check_suite(self.suite_of_keys())?;
                }
                Ok(proof)
            }
            () = &mut warm => {
                // No use in waiting for one that is bound to other keys.
                self.authority.check_suite(self.suite_of_keys())?;
                prove.await
            }
        }
    }

    /// Whether the platform can give this job another proof later; if not, why, in words that follow "cannot renew: ".
    pub(crate) fn renews(&self) -> Result<(), String> {
        let Run { settings, env, .. } = self.run;
        settings.source.as_ref().map_or_else(|| (settings.method.renews)(env), TokenSource::renews)
    }

    /// Whether another exchange would have another proof: a token that was
    /// handed over in a file may still be the one that was used.
    pub(crate) async fn has_another_proof(&self) -> bool {
        let Some(source) = &self.run.settings.source else { return true };
        let token = source.read(self.run.env, Instant::now()).await;
        token.is_ok_and(|token| self.handed.get() != Some(TokenSource::fingerprint(&token)))
    }

    /// Whether another proof is to be made in the place of one that is too old; why not is said once.
    async fn makes_room(&self, said: &mut bool) -> bool {
        if *said {
            return false;
        }
        match self.renews() {
            Ok(()) => self.has_another_proof().await,
            Err(why) => {
                self.run
                    .progress
                    .line(&format!("the proof may end before an answer comes, and there is no other: {why}"));
                *said = true;
                false
            }
        }
    }

    /// Whether the platform gave the job one token and no way to another.
    fn has_one_token(&self) -> bool {
        let settings = self.run.settings;
        !settings.by_hand && settings.source.as_ref().is_some_and(|source| source.renews().is_err())
    }

    /// The suite by which the keys were made, as long as they may be others.
    fn suite_of_keys(&self) -> Option<Suite> {
        self.run.suite.filter(|_| self.issued.borrow().is_none())
    }

    fn request(&self, proof: Proof) -> ExchangeRequest {
        let settings = self.run.settings;
        ExchangeRequest {
            token: settings.token.clone(),
            join_method: settings.method.name.to_owned(),
            proof,
            ttl_seconds: settings.ttl_seconds,
            outputs: self.run.issued_by(None).map(|(output, keys)| output_request(output, keys)).collect(),
            leaves: self.leaves.clone(),
        }
    }
}
