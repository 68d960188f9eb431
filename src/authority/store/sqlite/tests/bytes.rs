//! What stands in the trail, byte for byte: it is there for ever, and other programs read it.

use super::*;
use crate::authority::store::instances::NewSecret;
use crate::join::instance::{InstanceJoin, JoinClaims};

fn join(n: u64, instance: &str, generation: i64, secret: Option<[u8; 32]>) -> Entry {
    let claims =
        JoinClaims { id: format!("r{n}"), generation, attempt: format!("a{n}"), ..Default::default() };
    let join = InstanceJoin {
        instance: instance.into(),
        key: b"key".to_vec(),
        secret,
        replaces: (instance == "w-new").then(|| "w-old".into()),
        claims,
        held: HELD,
    };
    issuance(n).with(|entry| entry.join = Some(join))
}

#[test]
fn the_trail_is_as_it_was() {
    let bench = Bench::new();
    let mut first = issuance(1);
    first.plan.certificates[0].options = [("service".to_owned(), "orders \"db\"\n".to_owned())].into();
    first.plan.certificates[0].output_type = None;
    first.plan.certificates[1].groups = vec!["dev".into(), "ops".into()];
    first.plan.certificates[1].expires = NOW + 60;
    bench.issue(first);
    bench.wait(bench.store.refuse(refusal("d-1", Some(r#" {"sub":"other"} "#))));
    let found =
        NewRefusal { bot: Some("deployer".into()), verified: false, ..refusal("d-2", Some(r#"{"a":[7]}"#)) };
    bench.wait(bench.store.refuse(found));
    bench.wait(bench.store.refuse(refusal("d-3", None)));
    let certificate = issuance(7).plan.certificates.remove(0);
    bench.wait(bench.store.record_signed(NewSigned {
        id: "s-1".into(),
        time: NOW,
        by: "sign-host",
        certificate,
        cas: 0,
    }));
    bench.revoke(1, "a");
    bench.wait(bench.store.revoke(NewRevocation { issuance_id: "s-1".into(), ..revocation(1, "b") }));
    for (n, name) in [(21, "w-old"), (22, "w-new")] {
        let (hash, token) = ([n; 32], "github-deploy".to_owned());
        let bot = "deployer".to_owned();
        let secret = NewSecret { id: format!("k-{n}"), hash, token, bot, time: NOW, expires: NOW + 3600 };
        bench.wait(bench.store.add_secret(secret));
        bench.issue(join(n.into(), name, 0, Some(hash)));
    }
    bench.issue(join(23, "w-new", 1, None));
    bench.issue(join(24, "w-new", 1, None));
    bench.wait(bench.store.add_secret(NewSecret {
        id: "k-25".into(),
        hash: [25; 32],
        token: "github-deploy".into(),
        bot: "deployer".into(),
        time: NOW,
        expires: NOW + 3600,
    }));
    bench.issue(join(25, "w-third", 0, Some([25; 32])));
    bench.issue(join(26, "w-third", 7, None));

    let stored: Vec<String> = bench.wait(bench.store.reader.read(|connection| {
        connection
            .prepare("SELECT time || ' ' || event || ' ' || id || ' ' || coalesce(bot, '-') || ' ' || coalesce(token, '-'), packed FROM events ORDER BY sequence")?
            .query_map([], |row| Ok(format!("{} {}", row.get::<_, String>(0)?, rows::body(row, 1)?)))?
            .collect()
    }));
    assert_eq!(stored.join("\n") + "\n", include_str!("trail.txt"));
}
