//! A host that was thrown out gets no certificate from anybody, and has none; and what is kept of hosts.

use super::super::hosts::{HostCertificate, HostNews, HostSeen, MAX_HOSTS, Renewal, SERVE};
use super::super::locks::{LockKind, Shut};
use super::fixtures::*;
use super::*;

/// What a command signs for a host, of either kind, until then.
fn signed(serial: u64, by: &'static str, kind: CertificateKind, name: &str, expires: i64) -> NewSigned {
    let certificate = NewCertificate {
        serial,
        kind,
        output: "host".into(),
        output_type: None,
        principals: vec![name.into(), format!("{name}.example.com")],
        expires,
        is_host: by != SERVE,
        ..issuance(1).plan.certificates[0].clone()
    };
    NewSigned { id: format!("s{serial}"), time: NOW, by, certificate, cas: 0 }
}

/// Issuance `n` of a job that is a host, and a user beside it.
fn hosting(n: u64, name: &str) -> Entry {
    issuance(n).with(|entry| {
        let host = &mut entry.plan.certificates[0];
        host.output_type = Some("ssh-host".into());
        host.principals = vec![name.into()];
        host.is_host = true;
    })
}

fn sign(bench: &Bench, entry: NewSigned) -> Option<String> {
    taken_by(bench.wait(bench.store.record_signed(entry)))
}

/// The lock that has taken it.
fn taken_by(signed: Signed) -> Option<String> {
    match signed {
        Signed::Recorded => None,
        Signed::Locked(refused) => Some(refused.lock.id),
        Signed::Outdated => panic!("no CA was rotated"),
    }
}

fn throw_out(bench: &Bench, name: &str) -> Shut {
    bench.wait(bench.again().lock(lock(LockKind::Host, name)))
}

const YEARS: i64 = 5 * 365 * 86_400;

fn a_host_that_is_thrown_out_loses_what_it_has_of_whatever_age_and_gets_nothing(bench: &Bench) {
    use CertificateKind::{Ssh, Tls};
    // Signed long ago, and good for years; of others; and the authority's own.
    let old = |entry: NewSigned| NewSigned { time: NOW - 300 * 86_400, ..entry };
    for entry in [
        old(signed(100, "sign-host", Ssh, "web-1", NOW + YEARS)),
        old(signed(101, "sign-server", Tls, "web-1", NOW + YEARS)),
        old(signed(102, "sign-host", Ssh, "web-1", NOW - 3600)),
        signed(103, "sign-host", Ssh, "web-2", NOW + YEARS),
        signed(104, SERVE, Tls, "web-1", NOW + YEARS),
    ] {
        assert_eq!(sign(bench, entry), None);
    }
    for (n, name) in [(1, "web-1"), (2, "web-2")] {
        assert_eq!(bench.issue(hosting(n, name)), FRESH);
    }
    assert_eq!(bench.issue(issuance(3)), FRESH);
    let shut = throw_out(bench, "web-1");
    assert_eq!(shut.issuances, ["s100", "s101", "i1"]);
    let listed: Vec<u64> =
        bench.wait(bench.store.revoked(NOW)).iter().map(|revoked| revoked.serial).collect();
    assert_eq!(listed, [2, 3, 100, 101]);
    // Those that jobs are told of are SSH certificates of hosts; who ends last comes first.
    let told = |most| bench.wait(bench.store.revoked_hosts(NOW, most));
    assert_eq!((told(10), told(1)), (vec![100, 2], vec![100]));
    assert_eq!(bench.wait(bench.store.revoked_hosts(NOW + 3601, 10)), [100]);
    // Nobody signs for it, whichever of its names, by whichever way; for others they do.
    let locked = Some("l-host-web-1".to_owned());
    for store in [&bench.store, &bench.again()] {
        let sign = |entry| taken_by(bench.wait(store.record_signed(entry)));
        assert_eq!(sign(signed(200, "sign-host", Ssh, "web-1", NOW + 60)), locked);
        assert_eq!(sign(signed(201, "sign-server", Tls, "web-1", NOW + 60)), locked);
        let entry = hosting(20, "web-1");
        assert!(matches!(bench.wait(store.issue(entry.entry, entry.plan)), Issued::Locked(_)));
    }
    assert_eq!(sign(bench, signed(202, "sign-host", Ssh, "web-2", NOW + 60)), None);
    assert_eq!(sign(bench, signed(203, SERVE, Tls, "web-1", NOW + 60)), None);
    assert_eq!(bench.number("SELECT count(*) FROM certificates WHERE serial IN (200, 201)"), 0);
    let lifted = bench.wait(bench.store.unlock(LockKind::Host, "web-1".into(), NOW, "anna".into()));
    assert_eq!(lifted.len(), 1);
    assert_eq!(sign(bench, signed(200, "sign-host", Ssh, "web-1", NOW + YEARS)), None);
    assert_eq!(bench.issue(hosting(20, "web-1")), FRESH);
    assert_eq!(told(10), [100, 2], "what was revoked stays so");
}

/// A wildcard is good for a host that was thrown out; the one that is locked altogether is in the way of jobs alone.
fn other_locks_and_wildcards_are_judged_where_operators_sign(bench: &Bench) {
    use CertificateKind::{Ssh, Tls};
    let wild = |serial| {
        let mut entry = signed(serial, "sign-server", Tls, "x", NOW + 3600);
        entry.certificate.principals = vec!["*.example.com".into()];
        entry
    };
    assert_eq!(sign(bench, wild(100)), None);
    assert_eq!(throw_out(bench, "db.example.com").issuances, ["s100"]);
    assert_eq!(sign(bench, wild(101)), Some("l-host-db.example.com".to_owned()));
    bench.wait(bench.store.lock(lock(LockKind::All, "")));
    assert_eq!(sign(bench, signed(102, "sign-host", Ssh, "web-1", NOW + 3600)), None);
    let key = "02".repeat(32);
    bench.wait(bench.store.lock(lock(LockKind::Key, &key)));
    assert_eq!(sign(bench, signed(103, "sign-host", Ssh, "web-1", NOW + 3600)), Some(format!("l-key-{key}")));
}

/// As what was recorded before addresses had one spelling.
fn an_address_that_is_thrown_out_is_so_in_any_spelling(bench: &Bench) {
    let named = |serial, name: &str| {
        let mut entry = signed(serial, "sign-server", CertificateKind::Tls, "x", NOW + YEARS);
        entry.certificate.principals = vec![name.into()];
        entry
    };
    for (n, usual, other) in
        [(100, "2001:db8::2", "2001:db8:0:0:0:0:0:2"), (200, "10.0.0.1", "::ffff:10.0.0.1")]
    {
        assert_eq!(sign(bench, named(n, other)), None);
        assert_eq!(throw_out(bench, usual).issuances, [format!("s{n}")]);
        for (serial, name) in [(n + 1, usual), (n + 2, other)] {
            assert_eq!(sign(bench, named(serial, name)), Some(format!("l-host-{usual}")), "{name}");
        }
    }
    assert_eq!(sign(bench, named(300, "2001:db8::1")), None);
}

fn of_what_is_signed_and_a_host_that_is_thrown_out_nothing_works_afterwards(bench: &Bench) {
    let others = bench.again();
    for round in 0..10_u64 {
        let name = format!("web-{round}");
        let all = bench.runtime.block_on(async {
            let mut all = JoinSet::new();
            for n in 0..8 {
                let entry =
                    signed(100 * (round + 1) + n, "sign-host", CertificateKind::Ssh, &name, NOW + YEARS);
                let store = Arc::clone(if n % 2 == 0 { &bench.store } else { &others });
                all.spawn(async move {
                    let serial = entry.certificate.serial;
                    taken_by(store.record_signed(entry).await.unwrap()).is_none().then_some(serial)
                });
                if n == 4 {
                    let (store, new) = (Arc::clone(&others), lock(LockKind::Host, &name));
                    all.spawn(async move { store.lock(new).await.map(|_| None).unwrap() });
                }
            }
            all.join_all().await
        });
        let listed = bench.wait(bench.store.revoked_hosts(NOW, 1000));
        for serial in all.into_iter().flatten() {
            assert!(listed.contains(&serial), "{serial} is good");
        }
    }
}

fn the_names_of_a_host_are_known_by_its_certificate(bench: &Bench) {
    sign(bench, signed(100, "sign-host", CertificateKind::Ssh, "web-1", NOW + 3600));
    sign(bench, signed(101, SERVE, CertificateKind::Tls, "web-1", NOW + 3600));
    assert_eq!(bench.issue(hosting(1, "ci-1")), FRESH);
    let hosts = |serial| bench.wait(bench.store.certificate(serial)).unwrap().hosts;
    assert_eq!(hosts(100), ["web-1", "web-1.example.com"]);
    assert_eq!(hosts(2), ["ci-1"]);
    assert!(hosts(101).is_empty() && hosts(3).is_empty());
}

/// Of operators, workers and other jobs; not what is over or revoked, nor the authority's own.
fn certificates_of_hosts_are_found_by_their_ends(bench: &Bench) {
    use CertificateKind::{Ssh, Tls};
    for entry in [
        signed(100, "sign-server", Tls, "web-1", NOW + YEARS),
        signed(101, "sign-host", Ssh, "web-2", NOW + 7000),
        signed(102, "sign-host", Ssh, "web-3", NOW + 7000),
        signed(103, "sign-host", Ssh, "web-4", NOW),
        signed(104, "sign-host", Ssh, "web-5", NOW + 9000),
        signed(105, SERVE, Tls, "web-6", NOW + YEARS),
    ] {
        assert_eq!(sign(bench, entry), None);
    }
    throw_out(bench, "web-5");
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    let worker = registration(1, "w-a", SECRET).with(|entry| {
        let host = &mut entry.plan.certificates[0];
        (host.output_type, host.is_host) = (Some("ssh-host".into()), true);
    });
    assert_eq!(bench.issue(worker), joined(1));
    assert_eq!(bench.issue(hosting(2, "ci-2")), FRESH);
    assert_eq!(bench.issue(issuance(3)), FRESH);
    let all = |store: &Arc<dyn Store>| {
        let (mut all, mut after) = (Vec::new(), (NOW, u64::MAX));
        loop {
            let page: Vec<HostCertificate> = bench.wait(store.living(after, 2));
            let Some(last) = page.last() else { return all };
            after = (last.until, last.serial);
            all.extend(page);
        }
    };
    let found = all(&bench.store);
    let told = |one: &HostCertificate| (one.serial, one.kind, one.names[0].clone(), one.until, one.renewal);
    assert_eq!(
        found.iter().map(told).collect::<Vec<_>>(),
        [
            (2, Ssh, "deploy".to_owned(), NOW + 3600, Renewal::Worker),
            (4, Ssh, "ci-2".to_owned(), NOW + 3600, Renewal::Job),
            (101, Ssh, "web-2".to_owned(), NOW + 7000, Renewal::Operator),
            (102, Ssh, "web-3".to_owned(), NOW + 7000, Renewal::Operator),
            (100, Tls, "web-1".to_owned(), NOW + YEARS, Renewal::Operator),
        ]
    );
    let web = &found[4];
    assert_eq!(
        (web.names.len(), web.from, web.key_hash),
        (2, NOW, issuance(1).plan.certificates[0].key_hash)
    );
    assert!(found[2].issuance > web.issuance && found[0].issuance > found[3].issuance);
    assert_eq!(all(&bench.again()), found);
}

fn when_the_last_lists_were_made_is_known_to_all(bench: &Bench) {
    assert_eq!(bench.wait(bench.store.last_list()), None);
    bench.wait(bench.store.list_number(NOW, [1; 32]));
    bench.wait(bench.store.list_number(NOW + 60, [2; 32]));
    assert_eq!(bench.wait(bench.again().last_list()), Some(NOW + 60));
}

fn hosts_are_kept_as_they_were_last_heard(bench: &Bench) {
    let host = |name: &str, seen, list, cas: &[&str]| HostSeen {
        name: name.into(),
        seen,
        list,
        cas: cas.iter().map(|ca| (*ca).to_owned()).collect(),
        serial: 7,
    };
    let said = |host: &HostSeen| HostNews::Said(host.clone());
    let web = host("web-1", NOW, Some(u64::MAX), &["ssh-user SHA256:a", "tls sha256:b"]);
    let db = host("db", NOW, None, &[]);
    bench.wait(bench.store.hear_of(vec![said(&web), said(&db)]));
    assert_eq!(bench.wait(bench.again().hosts()), [db.clone(), web.clone()]);
    // It is still there, and what it has said stays; of one that has said nothing nothing is kept.
    let there = |name: &str, seen| HostNews::There(name.into(), seen);
    bench.wait(bench.store.hear_of(vec![there("web-1", NOW + 30), there("web-2", NOW + 30)]));
    bench.wait(bench.again().hear_of(vec![there("web-1", NOW + 29)]));
    assert_eq!(bench.wait(bench.store.hosts()), [db.clone(), HostSeen { seen: NOW + 30, ..web }]);
    let later = host("web-1", NOW + 60, Some(7), &["ssh-user SHA256:c"]);
    bench.wait(bench.again().hear_of(vec![said(&later)]));
    assert_eq!(bench.wait(bench.store.hosts()), [db.clone(), later.clone()]);
    // What another authority hears late is known already; a clock that was put back counts as what it is.
    bench.wait(bench.store.hear_of(vec![said(&host("web-1", NOW + 59, Some(6), &[]))]));
    assert_eq!(bench.wait(bench.store.hosts()), [db.clone(), later]);
    let before = host("web-1", NOW - 3600, Some(8), &[]);
    bench.wait(bench.again().hear_of(vec![said(&before)]));
    assert_eq!(bench.wait(bench.store.hosts()), [db, before]);
    // So many, and those that were heard last.
    let many = (0..MAX_HOSTS).map(|n| said(&host(&format!("ci-{n}"), NOW + 100, None, &[]))).collect();
    bench.wait(bench.store.hear_of(many));
    let kept = bench.wait(bench.store.hosts());
    assert!(kept.len() == MAX_HOSTS && kept.iter().all(|host| host.name.starts_with("ci-")));
}

promises! {
    a_host_that_is_thrown_out_loses_what_it_has_of_whatever_age_and_gets_nothing,
    other_locks_and_wildcards_are_judged_where_operators_sign,
    an_address_that_is_thrown_out_is_so_in_any_spelling,
    of_what_is_signed_and_a_host_that_is_thrown_out_nothing_works_afterwards,
    the_names_of_a_host_are_known_by_its_certificate,
    certificates_of_hosts_are_found_by_their_ends,
    when_the_last_lists_were_made_is_known_to_all,
    hosts_are_kept_as_they_were_last_heard,
}
