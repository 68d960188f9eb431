//! The certificate that is served, over time: the real authority with a clock that is held.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

use rcgen::PublicKeyData as _;

use super::keeper::CertificateKeeper;
use super::own::{LIFETIME, RENEW_BEFORE};
use super::*;
use crate::authority::Authority;
use crate::authority::ca::{CaKind, CaSet, CaState};
use crate::authority::http::router;
use crate::authority::issue::x509::ServerPlan;
use crate::authority::keys::tests::{keys_in, new_keys, source, started};
use crate::authority::keys::{CaKeys, Cross, NewCa};
use crate::authority::policy::Policy;
use crate::authority::store::record;
use crate::authority::store::seal::StoreKey;
use crate::authority::store::sqlite::Sqlite;
use crate::authority::validity::Validity;
use crate::clock::{Clock, LEEWAY, rfc3339};

mod ends;

const NOW: i64 = 1_795_348_800;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// How long the CA lives that a data directory begins with.
const CA_LIFE: i64 = 3650 * DAY;

/// How `readyz` ends where there is nothing to warn of.
const WELL: &str = r#""status":"ready"}"#;

/// A data directory whose CA was made at a time, and the clock of whoever serves it.
struct Data {
    dir: tempfile::TempDir,
    clock: Clock,
    runtime: tokio::runtime::Runtime,
}

/// Who is serving.
struct Serving<'d> {
    data: &'d Data,
    authority: Arc<Authority>,
    keeper: CertificateKeeper,
}

impl Data {
    fn new(ca_from: i64, now: i64) -> Self {
        crate::net::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        new_keys(dir.path(), ca_from);
        Sqlite::create(&dir.path().join("authority.db"), &StoreKey::beside(&dir.path().join("authority.db")))
            .unwrap();
        std::fs::create_dir(dir.path().join("policy")).unwrap();
        let role = "kind: role\nversion: v7\nmetadata: {name: deploy}\nspec: {allow: {logins: [deploy]}}\n";
        std::fs::write(dir.path().join("policy/role.yaml"), role).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data = Self { dir, clock: Clock::held(now), runtime };
        data.configure("");
        data
    }

    /// One with a certificate in files, good from a time for so long.
    fn with_files(from: i64, life: i64) -> Self {
        let data = Self::new(NOW, NOW);
        data.configure("tls: {cert_file: server.crt, key_file: server.key}\n");
        data.write(&Pair::new(from, from + life));
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, more: &str) {
        let config = "version: v1\ncluster: id.test\npublic_url: https://id.test\n";
        std::fs::write(self.path("authority.yaml"), format!("{config}{more}")).unwrap();
    }

    fn write(&self, pair: &Pair) {
        std::fs::write(self.path("server.crt"), &pair.chain).unwrap();
        std::fs::write(self.path("server.key"), &pair.key).unwrap();
        std::fs::set_permissions(
            self.path("server.key"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
    }

    fn serve(&self) -> Result<Serving<'_>> {
        let config = Config::load(self.dir.path())?;
        let keys = config.open_keys(&Arc::default())?;
        let store = Box::new(Sqlite::open(config.store.file()?, &config.store_key(), NOW)?);
        // Nothing here is about the policy, which would be waited for.
        let authority = Authority::assemble(config, keys, store, Policy::default(), self.clock.clone())?;
        let authority = Arc::new(authority);
        let keeper = self.runtime.block_on(CertificateKeeper::start(&authority))?;
        Ok(Serving { data: self, authority, keeper })
    }

    fn check(&self) -> Vec<String> {
        let config = Config::load(self.dir.path()).unwrap();
        let (warnings, _) = check(&config, self.clock.now(), &[]).unwrap();
        warnings
            .into_iter()
            .map(|one| format!("{}{}", if one.is_fault { "!" } else { "" }, one.message))
            .collect()
    }

    fn endings(&self) -> Vec<String> {
        let config = Config::load(self.dir.path()).unwrap();
        let (_, endings) = check(&config, self.clock.now(), &[]).unwrap();
        endings.iter().map(|one| one.line(self.clock.now())).collect()
    }
}

impl Serving<'_> {
    fn look(&mut self) {
        self.data.runtime.block_on(self.keeper.look(false));
    }

    /// Two looks, as files need.
    fn look_twice(&mut self) {
        self.look();
        self.look();
    }

    fn validity(&self) -> Validity {
        self.keeper.current().served().validity
    }

    /// Status and body of `GET /readyz`.
    fn readyz(&self) -> (u16, String) {
        let app = TowerToHyperService::new(router(Arc::clone(&self.authority), self.keeper.current()));
        let request =
            hyper::Request::get("/readyz").header("host", "id.test").body(axum::body::Body::empty()).unwrap();
        self.data.runtime.block_on(async {
            // What was found within the last second is told again, and the clock that is held has gone further.
            *self.authority.ready.lock().await = None;
            let response = app.call(request).await.unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }

    #[track_caller]
    fn is_ready(&self, is_ready: bool, said: &str) {
        let (status, body) = self.readyz();
        assert!(status == if is_ready { 200 } else { 503 } && body.contains(said), "{status} {body}");
    }

    /// How many certificates were recorded.
    fn made(&self) -> usize {
        self.data
            .runtime
            .block_on(self.authority.store.events(Default::default(), Default::default(), 100))
            .unwrap()
            .len()
    }
}

/// A certificate with its key, as files hold them.
struct Pair {
    chain: String,
    key: String,
}

fn at(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap()
}

fn params(name: &str, from: i64, until: i64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(from), at(until));
    params
}

impl Pair {
    /// For the host of the public URL, by itself.
    fn new(from: i64, until: i64) -> Self {
        Self::named("id.test", from, until)
    }

    fn named(name: &str, from: i64, until: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = params(name, from, until).self_signed(&key).unwrap().pem();
        Self { chain, key: key.serialize_pem() }
    }

    /// By an intermediate CA, which ends at a time and stands behind it, or does not.
    fn issued(from: i64, until: i64, ca_until: i64, has_chain: bool) -> Self {
        let (key, ca_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = params("Intermediate", from, ca_until);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Somebody else's root has signed it.
        let mut root = params("Root", from, until);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = Issuer::new(root, KeyPair::generate().unwrap());
        let behind = if has_chain { ca.signed_by(&ca_key, &root).unwrap().pem() } else { String::new() };
        let leaf = params("id.test", from, until).signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        Self { chain: leaf.pem() + &behind, key: key.serialize_pem() }
    }
}

#[test]
fn one_of_a_clock_that_was_ahead_is_made_again_at_once() {
    let data = Data::new(NOW, NOW + 2 * DAY);
    let mut serving = data.serve().unwrap();
    serving.is_ready(true, WELL);
    data.clock.set(NOW);
    serving.is_ready(false, "own certificate is not valid before 2026-11-24T11:59:00Z");
    serving.look();
    serving.is_ready(true, WELL);
    assert_eq!(serving.validity(), Validity { from: NOW - LEEWAY, until: NOW + LIFETIME });
    serving.look_twice();
    assert_eq!(serving.made(), 2);
    // And of one that was behind; then as ever, with a third of its time left.
    data.clock.set(NOW + 30 * DAY);
    serving.look();
    assert_eq!(serving.validity().until, NOW + 30 * DAY + LIFETIME);
    data.clock.set(NOW + 30 * DAY + LIFETIME - RENEW_BEFORE - 1);
    serving.look();
    assert_eq!(serving.made(), 3);
    data.clock.set(data.clock.now() + 1);
    serving.look();
    assert_eq!(serving.made(), 4);
}

#[test]
fn a_clock_that_is_not_set_yet_is_waited_for() {
    let data = Data::new(NOW, 0);
    let mut serving = data.serve().unwrap();
    serving.is_ready(false, "the TLS CA is not valid before 2026-11-22T11:59:00Z");
    serving.look_twice();
    assert_eq!(serving.made(), 1, "there is none better");
    data.clock.set(NOW + HOUR);
    serving.look();
    serving.is_ready(true, WELL);
}

#[test]
fn nothing_outlives_the_ca_and_its_end_is_told() {
    let end = NOW + CA_LIFE;
    let data = Data::new(NOW, end - 90 * DAY - 1);
    let mut serving = data.serve().unwrap();
    serving.is_ready(true, WELL);
    assert_eq!(data.check(), [""; 0]);
    data.clock.set(end - 90 * DAY);
    let ends = format!("the TLS CA ends at {}", rfc3339(end));
    serving.is_ready(true, &format!(r#""status":"ready","warnings":["{ends}: 90 days left"]}}"#));
    assert_eq!(data.check(), std::slice::from_ref(&ends));
    // How long there is is told of all that ends, whether it is near or not.
    let end_of = |what: &str, at: i64, days: i64| {
        format!(r#"{{"at":"{}","days_left":{days},"what":"{what}"}}"#, rfc3339(at))
    };
    data.clock.set(end - 30 * DAY - HOUR);
    serving.look();
    let list = data.runtime.block_on(serving.authority.revocation_lists()).unwrap().ending();
    let own = serving.validity().until;
    let expires = [
        end_of("the TLS CA", end, 30),
        end_of("the authority's own certificate", own, 7),
        end_of(&list.what, data.clock.now() + DAY, 1),
    ];
    serving.is_ready(true, &format!(r#"{{"expires":[{}],"#, expires.join(",")));
    serving.is_ready(true, &format!(r#""warnings":["{ends}: 30 days left"]"#));
    assert_eq!(data.endings(), [format!("the TLS CA ends at {}: 30 days left", rfc3339(end))]);
    data.clock.set(end - DAY);
    serving.look_twice();
    let made = serving.made();
    assert_eq!(serving.validity().until, end);
    // Another would end no later.
    for left in [HOUR, 60, 1] {
        data.clock.set(end - left);
        serving.look();
    }
    assert_eq!(serving.made(), made);
    data.clock.set(end);
    serving.look_twice();
    let ended = format!("the TLS CA ended at {}", rfc3339(end));
    serving.is_ready(false, &ended);
    assert_eq!((serving.made(), data.check()), (made, vec![format!("!{ended}")]));
    let error = data.serve().err().unwrap();
    assert_eq!((error.kind(), error.to_string()), (Kind::Usage, format!("{ended}, and signs nothing now")));
    assert!(error.hints()[0].contains(&rfc3339(end)), "{:?}", error.hints());
    // The last line of defence, whoever plans.
    let sign = |ttl: i64| {
        let spki = KeyPair::generate().unwrap().subject_public_key_info();
        let endless = Validity { from: 0, until: i64::MAX };
        let plan = ServerPlan::new(spki, vec!["x".to_owned()], (NOW, ttl), (endless, None)).unwrap();
        let recorded = record::command(serving.authority.store.as_ref(), "serve", NOW, 0, plan);
        data.runtime.block_on(recorded).unwrap().sign(&serving.authority.keys())
    };
    assert!(sign(CA_LIFE).is_ok(), "to its very end");
    let error = sign(CA_LIFE + 1).unwrap_err();
    assert_eq!(error.to_string(), "an X.509 certificate that would outlive its CA");
}

#[test]
fn files_are_taken_when_they_stand_still_and_a_good_certificate_is_kept() {
    let data = Data::with_files(NOW, 90 * DAY);
    let mut serving = data.serve().unwrap();
    let good = Validity { from: NOW, until: NOW + 90 * DAY };
    serving.look_twice();
    assert_eq!(serving.validity(), good);
    for (what, bad) in [
        ("ended", Pair::new(NOW - 2 * DAY, NOW - DAY)),
        ("not yet", Pair::new(NOW + HOUR, NOW + 91 * DAY)),
        ("another's name", Pair::named("other.test", NOW - 1, NOW + 91 * DAY)),
        (
            "another's key",
            Pair { key: KeyPair::generate().unwrap().serialize_pem(), ..Pair::new(NOW - 1, NOW + DAY) },
        ),
        (
            "half",
            Pair { chain: Pair::new(NOW - 1, NOW + DAY).chain[..300].to_owned(), ..Pair::new(NOW, NOW) },
        ),
        ("nothing", Pair { chain: String::new(), key: String::new() }),
    ] {
        data.write(&bad);
        serving.look_twice();
        data.runtime.block_on(serving.keeper.look(true));
        assert_eq!(serving.validity(), good, "{what}");
        serving.is_ready(true, WELL);
    }
    // One that was written together with its key, by content: neither size nor time tells.
    let next = Pair::new(NOW - 5, NOW + 60 * DAY);
    data.write(&next);
    serving.look();
    assert_eq!(serving.validity(), good, "one look");
    serving.look();
    assert_eq!(serving.validity().from, NOW - 5);
    // What was not valid yet is taken when it is, and what has ended once the old one has as well.
    data.write(&Pair::new(NOW + HOUR, NOW + 2 * HOUR));
    serving.look_twice();
    data.clock.set(NOW + HOUR);
    serving.look();
    assert_eq!(serving.validity().from, NOW + HOUR);
    data.write(&Pair::named("other.test", NOW, NOW + DAY));
    serving.look_twice();
    data.clock.set(NOW + 2 * HOUR);
    serving.is_ready(false, "the certificate in `cert_file` ended at 2026-11-22T14:00:00Z");
    serving.look();
    serving.is_ready(true, "is not for id.test, the host of `public_url`");
}

#[test]
fn what_clients_would_say_of_files_is_said_before() {
    let whole = |pair: Pair| {
        let data = Data::with_files(NOW, DAY);
        data.write(&pair);
        let serving = data.serve().unwrap();
        let (status, body) = serving.readyz();
        let said = data.check();
        assert_eq!(status == 503, said.iter().any(|one| one.starts_with('!')), "{said:?} {body}");
        assert!(said.iter().all(|one| body.contains(one.trim_start_matches('!'))), "{said:?} {body}");
        said
    };
    let in_file = "the certificate in `cert_file`";
    let year = 365 * DAY;
    let mut disordered = Pair::issued(NOW, NOW + year, NOW + year, true);
    let behind = disordered.chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
    disordered.chain.insert_str(behind, &Pair::named("Root", NOW, NOW + year).chain);
    for (pair, said) in [
        (Pair::new(NOW, NOW + 90 * DAY), vec![]),
        (Pair::issued(NOW, NOW + year, NOW + year, true), vec![]),
        (Pair::new(NOW - 75 * DAY + 1, NOW + 15 * DAY + 1), vec![]),
        (Pair::new(NOW - 75 * DAY, NOW + 15 * DAY), vec![format!("{in_file} ends at 2026-12-07T12:00:00Z")]),
        (Pair::new(NOW - year, NOW), vec![format!("!{in_file} ended at 2026-11-22T12:00:00Z")]),
        (
            Pair::new(NOW + 1, NOW + year),
            vec![format!("!{in_file} is not valid before 2026-11-22T12:00:01Z")],
        ),
        (
            Pair::named("*.id.test", NOW, NOW + year),
            vec![format!("{in_file} is not for id.test, the host of `public_url`")],
        ),
        (
            Pair::issued(NOW, NOW + year, NOW + year, false),
            vec!["`cert_file` holds a certificate without its issuer's".to_owned()],
        ),
        (disordered, vec!["`cert_file` does not hold its certificates in order".to_owned()]),
        (
            Pair::issued(NOW - DAY, NOW + year, NOW, true),
            vec!["a certificate in the chain of `cert_file` ended at 2026-11-22T12:00:00Z".to_owned()],
        ),
    ] {
        assert_eq!(whole(pair), said);
    }
}

#[test]
fn a_data_directory_without_its_keys_can_be_checked() {
    let data = Data::new(NOW, NOW + CA_LIFE);
    assert_eq!(data.check().len(), 1);
    std::fs::remove_dir_all(data.path("keys")).unwrap();
    assert_eq!(data.check(), [""; 0]);
}

/// The certificates of that CA by another's root, good until a time.
fn cross(ca: &str, until: i64) -> String {
    let der = crate::pem::certificates(ca).unwrap().remove(0);
    let (_, own) = x509_parser::parse_x509_certificate(&der).unwrap();
    let mut cross = CertificateParams::default();
    cross.distinguished_name = rcgen::DistinguishedName::new();
    cross
        .distinguished_name
        .push(DnType::CommonName, own.subject().iter_common_name().next().unwrap().as_str().unwrap());
    (cross.not_before, cross.not_after) = (at(NOW - DAY), at(until));
    let mut root = params("Root", NOW - DAY, NOW + CA_LIFE);
    for ca in [&mut cross, &mut root] {
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    }
    let key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&key).unwrap().pem();
    let spki = rcgen::SubjectPublicKeyInfo::from_der(own.public_key().raw).unwrap();
    let id = own.extensions().iter().find_map(|one| match one.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    cross.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(id.unwrap());
    cross.signed_by(&spki, &Issuer::new(root, key)).unwrap().pem() + &root_pem
}

#[test]
fn the_end_of_what_certifies_the_ca_is_told_and_is_the_end_of_what_it_signs() {
    let data = Data::new(NOW, NOW);
    let (end, file) = (NOW + 100 * DAY, data.path("keys/tls_ca_cross.crt"));
    let ca = std::fs::read_to_string(data.path("keys/tls_ca.crt")).unwrap();
    std::fs::write(&file, cross(&ca, end)).unwrap();
    data.clock.set(end - 90 * DAY - 1);
    assert_eq!(data.check(), [""; 0]);
    data.clock.set(end - 90 * DAY);
    let ends = format!("the cross-certificate of the TLS CA ends at {}", rfc3339(end));
    assert_eq!(data.check(), std::slice::from_ref(&ends));
    let mut serving = data.serve().unwrap();
    serving.is_ready(true, &format!(r#""warnings":["{ends}: 90 days left"]"#));
    data.clock.set(end - DAY);
    serving.look();
    assert_eq!(serving.validity().until, end, "not the CA's own end");
    data.clock.set(end);
    serving.look_twice();
    let ended = format!("the cross-certificate of the TLS CA ended at {}", rfc3339(end));
    serving.is_ready(false, &ended);
    assert_eq!(data.check(), [format!("!{ended}")]);
    let error = data.serve().err().unwrap();
    assert!(error.to_string().ends_with("and signs nothing now"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("authority import")), "{:?}", error.hints());
    // Another takes its place; and without one, the CA is what it was.
    std::fs::write(&file, cross(&ca, end + 200 * DAY)).unwrap();
    data.serve().unwrap().is_ready(true, WELL);
    std::fs::remove_file(&file).unwrap();
    let alone = data.serve().unwrap();
    alone.is_ready(true, WELL);
    assert_eq!(alone.keeper.current().served().key.cert.len(), 2);
}

#[test]
fn a_ca_under_a_root_is_rotated() {
    let data = Data::new(NOW, NOW);
    let (dir, certificate) = (data.dir.path(), data.path("keys/tls_ca.crt"));
    let (end, file) = (NOW + 100 * DAY, data.path("keys/tls_ca_cross.crt"));
    std::fs::write(&file, cross(&std::fs::read_to_string(&certificate).unwrap(), end)).unwrap();
    let set = started(&keys_in(dir), dir, CaKind::Tls);
    let next = &set.keys[1];
    let by_old = crate::pem::certificates(&next.cross[0]).unwrap().remove(0);
    assert_eq!(Validity::of(&by_old).unwrap().until, end, "the old one is good so long");
    std::fs::write(Cross::path(&certificate, &next.name), cross(&next.public, end + DAY)).unwrap();
    let mut finished = CaSet::clone(&set);
    (finished.keys[0].state, finished.keys[1].state) = (CaState::Ended, CaState::Current);
    let open = |set: &CaSet| CaKeys::open(&source(dir), &Arc::new(set.clone())).unwrap();
    assert!(open(&finished).tidy(&source(dir)).iter().all(Result::is_ok));
    assert_eq!(open(&finished).tls_validity().until, end + DAY);
    let ends = format!("the cross-certificate of the TLS CA ends at {}: 101 days left", rfc3339(end + DAY));
    assert!(data.endings().contains(&ends), "{:?}", data.endings());
    // What certified a CA that is no more is of no account.
    std::fs::write(&file, "nothing").unwrap();
    let keys = open(&finished);
    assert!(data.endings().contains(&ends) && keys.lacks().is_empty());
    // The one after that takes its place as well.
    let third = NewCa { kind: CaKind::Tls, occasion: "again", now: NOW };
    finished.keys.push(keys.make_next(&source(dir), third).unwrap());
    (finished.keys[1].state, finished.keys[2].state) = (CaState::Ended, CaState::Current);
    assert!(open(&finished).tidy(&source(dir)).iter().all(Result::is_ok));
    assert_eq!(std::fs::read_to_string(&certificate).unwrap(), finished.keys[2].public);
    assert_eq!(data.endings().len(), 1, "{:?}", data.endings());
}
