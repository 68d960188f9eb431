//! Hosts and jobs through a rotation of each key, planned or after a theft: what is trusted has its lists, and what is revoked
//! is out of every file before anything is fetched for it.

use std::path::Path;
use std::process::Stdio;

use super::stderr;
use crate::support::process::{Running, command, machine_id, read, run, succeed};
use crate::support::sshd::{Sshd, login};
use crate::support::stated::{Stated, TlsCa};
use crate::support::{now, wait_for};

const CRL: &str = "/v1/revoked/tls.crl";
const KRL: &str = "/v1/revoked/ssh.krl";

/// How many certificates and lists servers read.
fn count(authority: &Stated) -> [usize; 2] {
    ["trust/tls_ca.crt", "trust/tls.crl"].map(|name| {
        std::fs::read_to_string(authority.path(name)).unwrap_or_default().matches("BEGIN").count()
    })
}

fn hex(pin: &str) -> &str {
    pin.trim_start_matches("sha256:")
}

/// What OpenSSL says of a client by the files of the folder.
#[track_caller]
fn verifies(authority: &Stated, certificate: &str) -> bool {
    let path = authority.path("client.pem");
    std::fs::write(&path, certificate).unwrap();
    let mut verify = command("openssl");
    verify.args(["verify", "-crl_check", "-CAfile"]).arg(authority.path("trust/tls_ca.crt"));
    let output = run(verify.arg("-CRLfile").arg(authority.path("trust/tls.crl")).arg(path));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() || said.contains("certificate revoked"), "{said}");
    output.status.success()
}

/// `start`, `activate` and `finish` of the TLS CA, for a host with a timer.
#[test]
fn tls_cas_follow_one_another_with_their_lists() {
    let authority = Stated::start();
    let refresh = || run(&mut authority.host("refresh"));
    authority.state().x509.push((5, now() + 3600));
    stderr(&refresh(), 0);
    assert_eq!(count(&authority), [1, 1]);
    let old = authority.state().tls[0].pin();
    let new = authority.state().add_tls();
    authority.state().former.push((7, now() + 3600));
    authority.state().number += 1;
    let clients = {
        let state = authority.state();
        [(0, 5), (0, 6), (1, 7), (1, 8)].map(|(ca, serial)| state.tls[ca].client(serial))
    };

    // Without its list it is not trusted, and its list is its own.
    let path: &'static str = format!("{CRL}?ca={}", hex(&new)).leak();
    authority.state().lies.push((path, 404, Vec::new()));
    let said = stderr(&refresh(), 5);
    assert!(said.contains(&format!("answers {path} with status 404")), "{said}");
    let first = authority.state().answer(CRL).1;
    authority.state().lies = vec![(path, 200, first)];
    let said = stderr(&refresh(), 5);
    assert!(
        said.contains(&format!("{path} cannot be used: it is not the list that the authority states")),
        "{said}"
    );
    assert_eq!(count(&authority), [1, 1]);
    assert_eq!([&clients[0], &clients[1]].map(|client| verifies(&authority, client)), [false, true]);
    // One that is late holds up no other.
    authority.state().lies = vec![(CRL, 503, Vec::new())];
    let said = stderr(&refresh(), 5);
    assert!(said.contains(&format!("answers {CRL} with status 503")), "{said}");
    let judged = || clients.each_ref().map(|client| verifies(&authority, client));
    assert_eq!((count(&authority), judged()), ([2, 2], [false, true, false, true]));
    authority.state().lies.clear();
    stderr(&refresh(), 0);
    assert_eq!(succeed(&mut authority.host("refresh")), "", "nothing has changed");

    // The new one signs; whoever knows the old one alone goes on.
    authority.state().sign_by(1);
    authority.state().number += 1;
    stderr(&refresh(), 0);
    assert_eq!((count(&authority), judged()), ([2, 2], [false, true, false, true]));
    let mut both = [hex(&old), hex(&new)];
    both.sort_unstable();
    assert_eq!(
        authority.state().trusts.last(),
        Some(&Some(both.join(","))),
        "a host believes what it has heard"
    );
    let by_pin = |pin: &str, folder: &str| {
        run(authority.host_by("refresh", &authority.path(folder)).args(["--ca-pin", pin]))
    };
    let pair = format!("{new}, {old}");
    for (pin, folder) in [(&old, "a"), (&new, "b"), (&pair, "c")] {
        stderr(&by_pin(pin, folder), 0);
    }
    let stranger = format!("sha256:{}", "0".repeat(64));
    let said = stderr(&by_pin(&stranger, "d"), 5);
    assert!(said.contains(&format!("no CA with the pin {stranger} signed it")), "{said}");

    // The old one is trusted no more.
    authority.state().finish_tls();
    authority.state().number += 1;
    stderr(&refresh(), 0);
    assert_eq!(count(&authority), [1, 1]);
    assert_eq!([&clients[2], &clients[3]].map(|client| verifies(&authority, client)), [false, true]);
    // What has heard of the new one goes on, and what begins anew with the old one alone does not.
    stderr(&by_pin(&old, "a"), 0);
    let said = stderr(&by_pin(&format!("{old},{stranger}"), "e"), 5);
    assert!(said.contains(&format!("no CA with one of the pins {old}, {stranger} signed it")), "{said}");
    stderr(&by_pin(&pair, "e"), 0);
}

/// The same number, another CA.
#[test]
fn a_watcher_has_a_new_ca_and_its_list_at_once() {
    let authority = Stated::start();
    let watch = authority.watch([]);
    authority.state().add_tls();
    authority.beat();
    wait_for("both", || (count(&authority) == [2, 2]).then_some(()));
    authority.state().sign_by(1);
    authority.beat();
    // What the new one revokes is there as fast as what the old one did.
    authority.revoke(false, 9, true);
    wait_for("the list", || authority.has_crl().then_some(()));
    let client = authority.state().tls[1].client(9);
    assert!(!verifies(&authority, &client));
    authority.state().finish_tls();
    authority.state().number += 1;
    authority.beat();
    wait_for("one", || (count(&authority) == [1, 1]).then_some(()));
    assert_eq!(watch.stderr(), "");
}

/// Servers that hold the stolen key's CA for good, and one that goes by the folder's list of it.
#[test]
fn a_stolen_ssh_ca_lets_nobody_in_before_anything_is_fetched() {
    let authority = Stated::start();
    let [stolen, next, host] = [0, 1, 9].map(|ca| authority.ssh_ca_file(ca));
    let trust = authority.path("trust");
    let watch = authority.watch([]);
    let (ours, others) = (authority.certificate_by(&stolen, 7), authority.certificate_by(&next, 8));
    let lines = |name: &str| read(trust.join(name)).lines().count();
    let public = |ca: &Path| succeed(command("ssh-keygen").arg("-yf").arg(ca)).trim_end().to_owned();
    {
        let mut state = authority.state();
        (state.ssh_user_cas, state.ssh_host_cas) = (vec![0, 1], vec![9, 10]);
        state.endorse("ssh-user", &public(&next));
        state.endorse("ssh-host", &public(&authority.ssh_ca_file(10)));
        state.number += 1;
    }
    authority.beat();
    wait_for("both", || (lines("ssh_user_ca.pub") == 2 && lines("known_hosts") == 2).then_some(()));

    // An `sshd` whose host certificate is by the one CA, and its users' by the other.
    let folder = authority.path("sshd");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("cas"), format!("{}\n{}\n", public(&stolen), public(&next))).unwrap();
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join("host")));
    let mut sign = command("ssh-keygen");
    sign.args(["-q", "-h", "-I", "x", "-n", "127.0.0.1", "-V", "+1h", "-s"]).arg(&host);
    succeed(sign.arg(folder.join("host.pub")));
    let sshd = Sshd::with_config(&format!(
        "HostKey {0}/host\nHostCertificate {0}/host-cert.pub\nTrustedUserCAKeys {0}/cas\nRevokedKeys {1}/revoked.krl\n\
         AuthorizedKeysFile none\n",
        folder.display(),
        trust.display()
    ));
    let destination = |certificate: &Path, known_hosts: &str| {
        let name =
            certificate.file_name().unwrap().to_str().unwrap().to_owned() + &known_hosts.len().to_string();
        let folder = authority.path(&format!("of-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let key = certificate.to_str().unwrap().trim_end_matches("-cert.pub").to_owned();
        let config = format!(
            "Host *\nIdentityFile {key}\nCertificateFile {}\nIdentitiesOnly yes\nIdentityAgent none\n{known_hosts}",
            certificate.display()
        );
        std::fs::write(folder.join("ssh_config"), config).unwrap();
        folder
    };
    let anybody = "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n";
    let ours_alone = format!(
        "StrictHostKeyChecking yes\nUserKnownHostsFile none\nGlobalKnownHostsFile {}\n",
        trust.join("known_hosts").display()
    );
    let jobs_own = format!(
        "StrictHostKeyChecking yes\nUserKnownHostsFile {}/known\nRevokedHostKeys {}/revoked.krl\n",
        folder.display(),
        trust.display()
    );
    std::fs::write(folder.join("known"), format!("@cert-authority * {}\n", public(&host))).unwrap();
    let by_list = destination(&others, &jobs_own);
    let by_stolen = destination(&ours, anybody);
    let checked = destination(&others, &ours_alone);
    sshd.logs_in(&by_stolen);
    sshd.logs_in(&checked);
    sshd.logs_in(&by_list);

    // Both keys of index 0 and 9 are stolen, and no list is to be had.
    {
        let mut state = authority.state();
        (state.ssh_user_cas, state.ssh_host_cas, state.revoked_cas) = (vec![1], vec![10], vec![0, 9]);
        state.lies = vec![(KRL, 503, Vec::new()), (CRL, 503, Vec::new())];
        state.number += 1;
    }
    authority.beat();
    wait_for("the KRL", || authority.refuses(&ours).then_some(()));
    assert!(!authority.refuses(&others) && authority.refuses(&folder.join("host-cert.pub")));
    wait_for("its line", || (lines("ssh_user_ca.pub") == 1 && lines("ssh_host_ca.pub") == 1).then_some(()));
    sshd.refuses(&by_stolen, "revoked by file");
    let output = sshd.try_login(&checked, &login());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("REVOKED"), "{said}");
    let said = String::from_utf8_lossy(&sshd.try_login(&by_list, &login()).stderr).into_owned();
    assert!(said.contains("revoked by file") && said.contains("Host key verification failed"), "{said}");
    sshd.logs_in(&destination(&others, anybody));
    assert_eq!(lines("known_hosts"), 3, "{}", read(trust.join("known_hosts")));

    // With lists, all the same; and of a replica that knows nothing of it, it is not believed.
    authority.state().lies.clear();
    authority.state().ssh.push((99, now() + 3600));
    authority.state().number += 1;
    authority.beat();
    wait_for("the list", || authority.serials().contains(&99).then_some(()));
    let known = read(trust.join("ssh_user_ca.pub"));
    {
        let mut state = authority.state();
        (state.ssh_user_cas, state.revoked_cas) = (vec![0, 1], vec![]);
        state.number += 1;
    }
    authority.beat();
    wait_for("a warning", || watch.stderr().contains("it does not revoke the CA SHA256:").then_some(()));
    assert!(authority.refuses(&ours) && read(trust.join("ssh_user_ca.pub")) == known);
    // Nor where the list is lost.
    drop(watch);
    std::fs::remove_file(trust.join("revoked.krl")).unwrap();
    stderr(&run(&mut authority.host("refresh")), 5);
    assert!(authority.refuses(&ours) && read(trust.join("ssh_user_ca.pub")) == known);
    let listed = succeed(machine_id(["inspect"]).arg(trust.join("revoked.krl")));
    assert_eq!(listed.matches("SHA256:").count(), 2, "{listed}");
}

#[test]
fn a_stolen_tls_ca_is_gone_before_anything_is_fetched() {
    for has_next in [true, false] {
        let authority = Stated::start();
        let _watch = authority.watch([]);
        let old = authority.state().tls[0].pem.clone();
        authority.state().add_tls();
        if has_next {
            authority.state().number += 1;
            authority.beat();
            wait_for("both", || (count(&authority) == [2, 2]).then_some(()));
        }
        {
            let mut state = authority.state();
            state.finish_tls();
            state.revoked_tls = vec![old.clone()];
            state.lies = vec![(KRL, 503, Vec::new()), (CRL, 503, Vec::new())];
            state.number += 1;
        }
        authority.beat();
        let there = || read(authority.path("trust/tls_ca.crt"));
        wait_for("it is gone", || (there() != old && count(&authority)[0] == 1).then_some(()));
        // Of the next one there is a list, or nobody gets in until there is.
        let next = authority.state().tls[0].pem.clone();
        assert_eq!(there().replace('\n', "") == next.replace(['\n', '\r'], ""), has_next);
        authority.state().lies.clear();
        authority.beat();
        wait_for("the next one", || {
            let is_there = there().replace('\n', "") == next.replace(['\n', '\r'], "");
            (is_there && count(&authority) == [1, 1]).then_some(())
        });
        let client = authority.state().tls[0].client(1);
        assert!(verifies(&authority, &client));
        // By whichever way the authority is reached, the old one is not put back.
        authority.state().revoked_tls.clear();
        stderr(&run(&mut authority.host("refresh")), 0);
        assert!(count(&authority) == [1, 1] && there() != old);
    }
}

#[test]
fn jobs_say_whom_they_believe() {
    let authority = Stated::start();
    let old = authority.state().tls[0].pin();
    let new = authority.state().add_tls();
    authority.state().sign_by(1);
    let (token, bundle) = (authority.path("token"), authority.path("bundle"));
    std::fs::write(&token, "e30.e30.e30").unwrap();
    let pems: String = authority.state().tls.iter().map(|ca| ca.pem.clone()).collect();
    std::fs::write(&bundle, pems).unwrap();
    let (pair, bundle) = (format!("{new},{old}"), bundle.to_str().unwrap().to_owned());
    let job = |trust: [&str; 2]| {
        let mut once = machine_id(["once", "--join-method", "github", "--token", "t", "--timeout", "2s"]);
        once.args(trust).args(["--authority", &authority.url(), "--id-token-file"]).arg(&token);
        let output = run(once.arg("--destination").arg(authority.path("job")));
        assert!(!output.status.success());
        authority.state().trusts.drain(..).flatten().last()
    };
    assert_eq!(job(["--ca-pin", &old]).as_deref(), Some(hex(&old)));
    assert_eq!(job(["--ca-pin", &pair]), Some(format!("{},{}", hex(&new), hex(&old))));
    assert_eq!(job(["--ca-file", &bundle]), Some(format!("{},{}", hex(&old), hex(&new))));
    // A bundle of the system's says nothing.
    let many: String = (0..20).map(|_| crate::support::stated::TlsCa::fresh().pem).collect();
    std::fs::write(&bundle, read(&bundle) + &many).unwrap();
    assert_eq!(job(["--ca-file", &bundle]), None);
    assert!(authority.asked("/v1/exchange") >= 4);
}

/// The TLS CA that they know is stolen, and its successor's is the authority's certificate: what the statement key states, and the
/// old one vouches for, proves that to hosts which heard nothing of it.
#[test]
fn hosts_that_were_away_find_the_heir_of_a_stolen_tls_ca_by_themselves() {
    let authority = Stated::start();
    let refresh = || run(&mut authority.host("refresh"));
    stderr(&refresh(), 0);
    let folder = |name: &str| {
        let path = authority.path(name);
        succeed(command("cp").arg("-a").arg(authority.path("trust")).arg(&path));
        path
    };
    let watched = folder("watched");
    let files = || {
        ["tls_ca.crt", "authority_ca.crt", "authority.heard"]
            .map(|name| read(authority.path("trust").join(name)))
    };
    let (old, before) = (authority.state().tls[0].pem.clone(), files());
    let replayed = authority.state().answer("/v1/statement").1;
    {
        let mut state = authority.state();
        state.number += 1;
        state.add_tls();
        state.finish_tls();
        state.revoked_tls = vec![old];
    }
    let truth = authority.state().endorsements.clone();
    let none_is_believed = |what: &str| {
        let said = stderr(&refresh(), 5);
        assert!(said.contains("its certificate is not trusted"), "{what}: {said}");
        assert!(files() == before, "{what}");
    };
    // Who can sign nothing but by the stolen one: whatever he says, the authority's certificate is none of it.
    authority.state().lies = vec![("/v1/statement", 200, replayed)];
    none_is_believed("what was stated before");
    authority.state().lies = vec![("/v1/statement", 200, b"{}".to_vec())];
    none_is_believed("nothing");
    authority.state().lies.clear();
    let (_, long) = authority.state().answer("/v1/statement");
    authority.state().lies = vec![("/v1/statement", 200, [vec![b' '; 128 << 10], long].concat())];
    none_is_believed("one that takes long to judge");
    authority.state().lies.clear();
    authority.state().number -= 2;
    none_is_believed("an older one");
    authority.state().number += 2;
    authority.state().made = Some(now() - 661);
    none_is_believed("one whose time is over");
    authority.state().made = None;
    authority.state().endorsements.clear();
    none_is_believed("one that the stolen one does not vouch for");
    authority.state().endorsements = truth;
    let sign_by = |key: u8| {
        let mut state = authority.state();
        (state.signer, state.keys) = (key, vec![key]);
    };
    sign_by(1);
    none_is_believed("a key that nobody knows");
    sign_by(0);
    authority.state().cluster = "id.example.org".into();
    none_is_believed("another cluster");
    authority.state().cluster = "id.example.com".into();
    // He passes on what is true, before a certificate of his own.
    let (ours, his) = (authority.state().tls.remove(0), TlsCa::fresh());
    let line = |authority: &Stated| authority.state().answer("/v1/statement").1;
    authority.state().tls.push(ours);
    let said = line(&authority);
    let server = authority.state().serve_by(&his);
    authority.state().lies = vec![("/v1/statement", 200, said)];
    none_is_believed("whoever passes it on");
    authority.state().lies.clear();
    authority.state().serve(server);
    // An operator who names another is not overruled.
    let stranger = format!("sha256:{}", "0".repeat(64));
    let mut by_another = authority.host_by("refresh", &authority.path("trust"));
    assert!(stderr(&run(by_another.args(["--ca-pin", &stranger])), 5).contains("no CA with the pin"));
    assert!(files() == before);

    // The truth: it is told nothing before it has proved itself, and all is as by the one that was known.
    let watch =
        Running::start(authority.host_in("watch", &watched).stdout(Stdio::null()).stderr(Stdio::piped()));
    stderr(&refresh(), 0);
    let new = authority.state().tls[0].pem.replace('\r', "");
    let has_new = |folder: &Path| {
        ["tls_ca.crt", "authority_ca.crt"]
            .iter()
            .all(|name| read(folder.join(name)).trim_end() == new.trim_end())
    };
    assert!(has_new(&authority.path("trust")), "{}", read(authority.path("trust/tls_ca.crt")));
    wait_for("the watcher's", || has_new(&watched).then_some(()));
    assert_eq!(watch.stderr(), "");
    drop(watch);
    let asked = authority.asked("/v1/statement");
    stderr(&refresh(), 0);
    assert_eq!(authority.asked("/v1/statement"), asked + 1, "it knows it by now");
    // Nor does one of two lists look for it that are asked for at once.
    let lists = || [CRL, KRL].map(|path| authority.asked(path));
    let before = lists();
    let _watch = Running::start(authority.host("watch").stdout(Stdio::null()));
    wait_for("both", || lists().iter().zip(before).all(|(now, before)| *now > before).then_some(()));
    assert_eq!(authority.asked("/v1/statement"), asked + 1);
}
