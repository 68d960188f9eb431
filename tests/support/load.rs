//! Jobs that exchange under load and remember all that they were told; what
//! must be true afterwards, whatever happened meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::client::{Client, Keys, Response, assertion_claims};
use super::issuer::Issuer;
use super::{random, wait_for, wait_slowly_for};

/// Of so many exchanges of a client, one gives its certificates back, and in another a thief tries its token.
const TURNS: usize = 8;
/// How long a job waits before it asks again, which is less than real ones do.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one waits between two exchanges, and after a refusal: the load is there, and leaves room for trouble.
const REST: Duration = Duration::from_millis(50);
/// Tokens that are kept to be tried once more.
const KEPT_TOKENS: usize = 20;

/// Jobs of one issuer, and the replicas that they ask.
pub struct Load<'i> {
    issuer: &'i Issuer,
    url: String,
    replicas: Vec<Client>,
    /// Whether an honest job may be refused for now: by an authority with a wrong clock, say.
    is_lenient: AtomicBool,
    /// Whether each gives back what it got.
    gives_all_back: bool,
    told: Mutex<Told>,
}

/// What they were told.
#[derive(Clone, Default)]
struct Told {
    /// Issuances, with the serials that came back.
    granted: BTreeMap<String, BTreeSet<String>>,
    /// Refusals that said they were recorded.
    denied: BTreeSet<String>,
    /// Issuances that were taken back, as the authority has acknowledged.
    revoked: BTreeSet<String>,
    /// Requests that had no answer before the load ended.
    open: Vec<Value>,
    /// Some of the tokens that were used.
    tokens: Vec<String>,
    /// What did not work, and how often.
    troubles: BTreeMap<String, usize>,
}

/// How an authority answers.
enum Answer {
    Granted(Value),
    Denied(String),
    /// Nothing, or that it cannot say now.
    NotNow,
}

impl<'i> Load<'i> {
    /// Jobs whose tokens are for this URL and who ask these replicas.
    pub fn new(issuer: &'i Issuer, url: &str, replicas: Vec<Client>) -> Self {
        let (is_lenient, told) = (AtomicBool::new(false), Mutex::default());
        Self { issuer, url: url.to_owned(), replicas, is_lenient, gives_all_back: false, told }
    }

    /// The same, where each job gives its certificates back, so that none of them lives on.
    pub fn giving_all_back(self) -> Self {
        Self { gives_all_back: true, ..self }
    }

    /// So many jobs at once, each with one exchange after the other, while `trouble` lasts. No honest one is refused.
    pub fn during<T>(&self, jobs: usize, trouble: impl FnOnce() -> T) -> T {
        struct End<'e>(&'e AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = End(&ended);
            for _ in 0..jobs {
                scope.spawn(|| self.job(&ended));
            }
            trouble()
        })
    }

    /// Whether honest jobs may be refused from now on: they ask again, or elsewhere.
    pub fn may_refuse(&self, is_lenient: bool) {
        self.is_lenient.store(is_lenient, Ordering::Relaxed);
    }

    fn job(&self, ended: &AtomicBool) {
        let keys = Keys::fresh();
        for turn in usize::from(random::<1>()[0]).. {
            if ended.load(Ordering::Relaxed) {
                return;
            }
            // Not bound to keys, so that a thief could use it.
            let token = self.issuer.token("github", &self.url).mint();
            let request = keys.request("github-deploy", "github", &token);
            let Some(granted) = self.granted_before(ended, &request) else {
                self.told(|told| told.open.push(request));
                return;
            };
            if self.gives_all_back || turn % TURNS == 0 {
                self.give_back(&keys, &granted);
            }
            if turn % TURNS == 1 {
                self.steal(&token);
            }
            self.told(|told| {
                if told.tokens.len() < KEPT_TOKENS {
                    told.tokens.push(token);
                }
            });
            std::thread::sleep(REST);
        }
    }

    /// Asks one replica after another, from any on, with the same request.
    fn granted_before(&self, ended: &AtomicBool, request: &Value) -> Option<Value> {
        for replica in usize::from(random::<1>()[0]).. {
            match self.ask(replica, request) {
                Answer::Granted(granted) => return Some(granted),
                Answer::Denied(why) => {
                    assert!(self.is_lenient.load(Ordering::Relaxed), "an honest job is refused: {why}");
                    std::thread::sleep(REST);
                }
                Answer::NotNow => {}
            }
            if ended.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
        None
    }

    fn replica(&self, number: usize) -> &Client {
        &self.replicas[number % self.replicas.len()]
    }

    fn ask(&self, replica: usize, request: &Value) -> Answer {
        match self.replica(replica).try_exchange(request) {
            Ok(response) if response.status == 200 => {
                let granted = response.json();
                let (id, serials) = (id(&granted), serials(&granted));
                self.told(|told| {
                    let before = told.granted.entry(id.clone()).or_insert_with(|| serials.clone());
                    assert_eq!(*before, serials, "{id} is answered again with other serials");
                });
                Answer::Granted(granted)
            }
            Ok(response) if matches!(response.status, 401 | 403) => {
                self.told(|told| told.denied.insert(response.denial(response.status)));
                Answer::Denied(response.text())
            }
            other => self.trouble(other),
        }
    }

    fn trouble(&self, answer: std::io::Result<Response>) -> Answer {
        let what = match answer {
            Ok(response) => {
                assert!(matches!(response.status, 429 | 503), "{} {}", response.status, response.text());
                assert!(response.header("retry-after").is_some(), "{:?}", response.headers);
                response.problem(response.status)["type"].to_string()
            }
            Err(_) => "no answer".to_owned(),
        };
        self.told(|told| *told.troubles.entry(what).or_default() += 1);
        Answer::NotNow
    }

    /// A thief's attempt, with keys of their own.
    fn steal(&self, token: &str) {
        let request = Keys::fresh().request("github-deploy", "github", token);
        let answer = self.ask(random::<1>()[0].into(), &request);
        assert!(!matches!(answer, Answer::Granted(_)), "a token was used twice");
    }

    fn give_back(&self, keys: &Keys, granted: &Value) {
        let chain = granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
        let assertion = keys.tls_assertion(chain, &assertion_claims(&self.url));
        let body = json!({"issuance_id": granted["issuance_id"], "assertion": assertion}).to_string();
        let replica = self.replica(random::<1>()[0].into());
        match replica.try_send("POST", "/v1/revoke", "Content-Type: application/json\r\n", body.as_bytes()) {
            Ok(response) if response.status == 200 => {
                self.told(|told| told.revoked.insert(id(granted)));
            }
            Ok(response) if response.status == 401 && self.is_lenient.load(Ordering::Relaxed) => {
                self.told(|told| told.denied.insert(response.denial(401)));
            }
            // Not acknowledged, so nothing is promised.
            other => drop(self.trouble(other)),
        }
    }

    /// So many clients at once present one token to the replicas, each with keys of its own: one gets something.
    #[track_caller]
    pub fn replay(&self, clients: usize) {
        let token = self.issuer.token("github", &self.url).mint();
        let barrier = Barrier::new(clients);
        let one = |number: usize| {
            let request = Keys::fresh().request("github-deploy", "github", &token);
            barrier.wait();
            self.ask(number, &request)
        };
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || one(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let granted = answers.iter().filter(|answer| matches!(answer, Answer::Granted(_))).count();
        let denied = answers.iter().filter(|answer| matches!(answer, Answer::Denied(_))).count();
        assert_eq!((granted, denied), (1, clients - 1), "{:?}", self.troubles());
    }

    /// Tokens that were used are tried by others, at each replica.
    #[track_caller]
    pub fn steal_what_was_used(&self) {
        let tokens = self.told(|told| told.tokens.clone());
        assert!(!tokens.is_empty(), "no load");
        tokens.iter().for_each(|token| self.steal(token));
    }

    /// How many issuances were acknowledged so far.
    pub fn granted(&self) -> usize {
        self.told(|told| told.granted.len())
    }

    /// How many were given back so far.
    pub fn given_back(&self) -> usize {
        self.told(|told| told.revoked.len())
    }

    /// What did not work, and how often.
    pub fn troubles(&self) -> BTreeMap<String, usize> {
        self.told(|told| told.troubles.clone())
    }

    /// Waits until so many more are acknowledged, which were asked for later than now.
    #[track_caller]
    pub fn goes_on(&self, more: usize) {
        let goal = self.granted() + more;
        wait_for("issuances under load", || (self.granted() >= goal).then_some(()));
    }

    /// Waits until jobs are told this, or have no answer at all, where it is `no answer`.
    #[track_caller]
    pub fn fails_with(&self, kind: &str) {
        let count =
            || self.troubles().iter().filter(|(what, _)| what.contains(kind)).map(|(_, n)| n).sum::<usize>();
        let before = count();
        wait_for(kind, || (count() > before).then_some(()));
    }

    /// Everything works again: what had no answer is asked again, and granted. Then all that was ever told is held
    /// against the trail and against the lists of each replica.
    #[track_caller]
    pub fn holds(&self, trail: impl FnOnce() -> Vec<Value>) {
        let open = self.told(|told| std::mem::take(&mut told.open));
        for (number, request) in open.iter().enumerate() {
            wait_slowly_for("an answer to what had none", PAUSE, || match self.ask(number, request) {
                Answer::Granted(_) => Some(()),
                Answer::Denied(why) => panic!("an honest job is refused: {why}"),
                Answer::NotNow => None,
            });
        }
        let trail = trail();
        let recorded = self.recorded(&trail);
        // A copy: what is found wrong here would poison it.
        let told = self.told(|told| told.clone());
        for (id, serials) in &told.granted {
            let record =
                recorded.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is not recorded"));
            assert_eq!(record, serials, "the serials of {id}");
        }
        let ids = |event: &str, name: &str| -> BTreeSet<String> {
            let all = trail.iter().filter(|one| one["event"] == event);
            all.filter_map(|one| one[name].as_str().map(str::to_owned)).collect()
        };
        let lacking = |what: &str, of: &BTreeSet<String>, recorded: BTreeSet<String>| {
            let lacking: Vec<&String> = of.difference(&recorded).collect();
            assert!(lacking.is_empty(), "{what} acknowledged and not recorded: {lacking:?}");
        };
        lacking("refusals", &told.denied, ids("refused", "denial_id"));
        lacking("revocations", &told.revoked, ids("revoked", "issuance_id"));
        let revoked: BTreeSet<&String> = told.revoked.iter().flat_map(|id| &told.granted[id]).collect();
        for replica in &self.replicas {
            wait_for("every acknowledged revocation in the lists", || {
                let listed = listed(replica);
                revoked.iter().all(|serial| listed.contains(*serial)).then_some(())
            });
        }
        println!(
            "{} issuances, {} refusals, {} revocations, {} asked again at the end, troubles {:?}",
            told.granted.len(),
            told.denied.len(),
            told.revoked.len(),
            open.len(),
            told.troubles
        );
        assert!(told.granted.len() > TURNS && !told.revoked.is_empty(), "no load");
    }

    /// The serials of each issuance in the trail: none stands there twice, no token bought two.
    #[track_caller]
    fn recorded(&self, trail: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
        let (mut recorded, mut all, mut tokens) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for event in trail.iter().filter(|event| event["event"] == "issued") {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let serials: BTreeSet<String> = event["serials"].as_array().unwrap().iter().map(text).collect();
            for serial in &serials {
                assert!(all.insert(serial.clone()), "the serial {serial} stands twice");
            }
            assert!(tokens.insert(text(&event["claims"]["jti"])), "a token was used twice: {event}");
            assert!(recorded.insert(id(event), serials).is_none(), "recorded twice: {event}");
        }
        recorded
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.told.lock().unwrap())
    }
}

fn id(granted: &Value) -> String {
    granted["issuance_id"].as_str().unwrap().to_owned()
}

/// The serials of an answer.
fn serials(granted: &Value) -> BTreeSet<String> {
    let output = &granted["outputs"][0];
    ["serial", "tls_serial"].iter().map(|name| output[*name].as_str().unwrap().to_owned()).collect()
}

/// The serials that a replica lists as revoked, on the lists of all CAs that are trusted.
fn listed(replica: &Client) -> BTreeSet<String> {
    let krl = replica.get("/v1/revoked/ssh.krl");
    assert_eq!(krl.status, 200);
    let mut listed: BTreeSet<String> =
        machine_id::krl::read(&krl.body).unwrap().serials.iter().map(u64::to_string).collect();
    let trust = replica.get("/v1/trust").json();
    for ca in trust["tls_cas"].as_array().unwrap() {
        let ca = CertificateDer::from_pem_slice(ca.as_str().unwrap().as_bytes()).unwrap();
        let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, ca.public_key().raw);
        let crl = replica.get(&format!("/v1/revoked/tls.crl?ca={}", machine_id::text::hex(hash.as_ref())));
        assert_eq!(crl.status, 200);
        let (_, crl) = CertificateRevocationList::from_der(&crl.body).unwrap();
        listed.extend(crl.iter_revoked_certificates().map(|one| one.user_certificate.to_string()));
    }
    listed
}
