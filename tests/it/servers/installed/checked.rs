//! `host check` says why a login would be refused, and `sshd` refuses it.

use base64::Engine as _;
use serde_json::Value;

use crate::support::host::{Machine, can_be_had};
use crate::support::once::Outcome;
use crate::support::process::{self, command, run, succeed};

/// Whether it works, and what is not well, by verdict and subject.
fn told(outcome: &Outcome) -> (bool, Vec<(String, String, String)>) {
    let page: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let all = page["findings"].as_array().unwrap();
    let odd = all.iter().filter(|finding| finding["verdict"] != "ok");
    let odd = odd.map(|finding| (text(finding, "verdict"), text(finding, "about"), text(finding, "message")));
    (page["works"].as_bool().unwrap(), odd.collect())
}

/// How it ended; what it found stands on stdout.
#[track_caller]
fn ended(outcome: Outcome, code: i32) -> Outcome {
    assert_eq!(outcome.code, code, "{}{}", outcome.stdout, outcome.stderr);
    outcome
}

#[test]
fn each_reason_is_named() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    let unset = ended(machine.host(["check", "--format", "json"]), 6);
    assert!(
        told(&unset)
            .1
            .iter()
            .any(|(verdict, about, _)| (verdict.as_str(), about.as_str()) == ("fault", "TrustedUserCAKeys"))
    );
    machine.install(["--labels", "env=prod", "--end-sessions"]).good();
    let job = machine.job("job");
    let certificate = job.join("key-cert.pub").display().to_string();
    let check = |user: &str, file: &str| {
        machine.host(["check", "--format", "json", "--user", user, "--certificate", file])
    };
    assert_eq!(told(&check("deploy", &certificate).good()), (true, Vec::new()));
    machine.host(["check"]).good();
    // From stdin, and in words.
    let mut piped = machine.host_command(["check", "--user", "deploy", "--certificate", "-"]);
    let piped = Outcome::of(&run(piped.stdin(std::fs::File::open(&certificate).unwrap()))).good();
    assert!(piped.stdout.contains("ok: login: deploy gets in by this certificate"), "{}", piped.stdout);

    // Each of these is refused by sshd as well.
    let refused = |user: &str, file: &str, about: &str, words: &str| {
        let (works, odd) = told(&ended(check(user, file), 4));
        let is_it = |(verdict, what, message): &(String, String, String)| {
            verdict == "refused" && what == about && message.contains(words)
        };
        assert!(!works && odd.iter().any(is_it), "{words}: {odd:?}");
    };
    refused("root", &certificate, "principals", "none is `root`");
    refused("nobody-here", &certificate, "user", "there is no user `nobody-here`");
    let with = |line: &str, about: &str, words: &str| {
        machine.sh(&format!("cp /etc/ssh/sshd_config /run/kept; sed -i '1i {line}' /etc/ssh/sshd_config; systemctl try-reload-or-restart ssh.service"));
        refused("deploy", &certificate, about, words);
        assert!(!machine.lets_in(&job), "{line}");
        machine.sh("cp /run/kept /etc/ssh/sshd_config; systemctl try-reload-or-restart ssh.service");
        assert!(machine.lets_in(&job), "{line}: {}", machine.log());
    };
    with("DenyUsers dep*", "user", "denyusers keeps `deploy` out");
    with("AllowUsers root", "user", "allowusers keeps `deploy` out");
    with("AllowGroups root", "user", "allowgroups keeps `deploy` out");
    with("PubkeyAuthentication no", "certificate", "PubkeyAuthentication is off");
    with("CASignatureAlgorithms rsa-sha2-512", "certificate", "casignaturealgorithms has no ssh-ed25519");
    with(
        "PubkeyAcceptedAlgorithms ssh-ed25519",
        "certificate",
        "pubkeyacceptedalgorithms has no ssh-ed25519-cert",
    );
    let broken = |break_it: &str, about: &str, words: &str, mend: &str| {
        machine.sh(break_it);
        refused("deploy", &certificate, about, words);
        assert!(!machine.lets_in(&job), "{break_it}");
        machine.sh(mend);
        assert!(machine.lets_in(&job), "{break_it}: {}", machine.log());
    };
    broken("usermod --lock deploy", "user", "its account is locked", "usermod --unlock deploy");
    broken(
        "usermod --shell /bin/gone deploy 2>/dev/null",
        "user",
        "its shell, /bin/gone, is not there",
        "usermod --shell /bin/sh deploy",
    );
    broken("touch /etc/nologin", "user", "/etc/nologin", "rm /etc/nologin");

    // The host's fault.
    let faulty = |break_it: &str, about: &str, words: &str, mend: &str, is_out: Option<bool>| {
        machine.sh(break_it);
        let (works, odd) = told(&ended(check("deploy", &certificate), 6));
        let is_it = |(verdict, what, message): &(String, String, String)| {
            verdict == "fault" && what == about && message.contains(words)
        };
        assert!(!works && odd.iter().any(is_it), "{break_it}: {odd:?}");
        if let Some(is_out) = is_out {
            assert_eq!(!machine.lets_in(&job), is_out, "{break_it}: {}", machine.log());
        }
        machine.sh(mend);
        assert_eq!(told(&check("deploy", &certificate).good()).1, Vec::new(), "{mend}");
    };
    let stop = "pid=$(cat /run/units/pid/machine-id-watch.service); kill $pid; \
                while kill -0 $pid 2>/dev/null; do sleep 0.02; done; ";
    let trust = "/var/lib/machine-id-host/trust";
    // The watcher would mend what is broken here.
    faulty(
        &format!("{stop} true"),
        "units",
        "machine-id-watch.service has failed",
        "systemctl restart machine-id-watch.service",
        Some(false),
    );
    faulty(
        &format!("{stop} mv {trust}/revoked.krl {trust}/away"),
        "RevokedKeys",
        "sshd refuses every key",
        &format!("mv {trust}/away {trust}/revoked.krl; systemctl restart machine-id-watch.service"),
        Some(true),
    );
    faulty(
        &format!("chmod o+w {trust}"),
        "TrustedUserCAKeys",
        "can be written to by everybody",
        &format!("chmod o-w {trust}"),
        Some(false),
    );
    faulty(
        "chmod o+w /usr/local/bin",
        "AuthorizedPrincipalsCommand",
        "sshd may not run /usr/local/bin/machine-id",
        "chmod o-w /usr/local/bin",
        Some(true),
    );
    faulty(
        "chmod 755 /run/machine-id-sessions",
        "AuthorizedPrincipalsCommand",
        "no login can be noted",
        "chmod 700 /run/machine-id-sessions",
        Some(true),
    );
    faulty(
        "mv /etc/ssh/machine-id-host /etc/ssh/away",
        "HostCertificate",
        "ssh_host-cert.pub",
        "mv /etc/ssh/away /etc/ssh/machine-id-host",
        // Whether that is read at each connection depends on sshd's version.
        None,
    );

    // SELinux's own list says which labels are right; here it is one that says what it is told.
    let mount = "mount -t tmpfs none /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce; \
                 printf '#!/bin/sh\\n[ \"$2\" != /usr/local/bin/machine-id ] || { echo \"$2 has context a, should be b\"; exit 1; }\\n' \
                 >/usr/local/sbin/matchpathcon; chmod 755 /usr/local/sbin/matchpathcon";
    let unmount = "rm /usr/local/sbin/matchpathcon; umount /sys/fs";
    faulty(mount, "SELinux", "/usr/local/bin/machine-id has context a, should be b", unmount, None);
    // A list from the future: the clock is behind, or the authority's was ahead.
    let list = machine.sh(&format!("{stop} base64 -w 0 {trust}/revoked.krl"));
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(list.trim()).unwrap();
    bytes[20..28].copy_from_slice(&u64::try_from(crate::support::now() + 3600).unwrap().to_be_bytes());
    std::fs::write(machine.path("ahead"), bytes).unwrap();
    faulty(
        &format!(
            "cp {trust}/revoked.krl /run/kept.krl; cp {} {trust}/revoked.krl",
            machine.path("ahead").display()
        ),
        "clock",
        " from now",
        &format!("cp /run/kept.krl {trust}/revoked.krl; systemctl restart machine-id-watch.service"),
        Some(false),
    );

    // Other labels, another CA, a certificate that has ended, one that begins later, and one that was revoked.
    machine.install(["--labels", "env=dev"]).good();
    refused("deploy", &certificate, "principals", "this host has other labels: env=dev");
    machine.install(["--labels", "env=prod"]).good();
    let ca = machine.path("ca");
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&ca));
    for (name, times, words) in [
        ("other", "-1m:+1h", "is not among those that sshd trusts"),
        ("ended", "-2h:-1h", "it has ended at "),
        ("later", "+1h:+2h", "it is valid from "),
    ] {
        let key = machine.path(name);
        succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let mut sign = command("ssh-keygen");
        sign.arg("-q").arg("-s").arg(&ca).args(["-I", "x", "-n", "deploy", "-V", times]);
        succeed(sign.arg(machine.path(&format!("{name}.pub"))));
        refused(
            "deploy",
            &machine.path(&format!("{name}-cert.pub")).display().to_string(),
            "certificate",
            words,
        );
    }
    let serial = ssh_key::Certificate::from_openssh(&process::read(&certificate)).unwrap().serial();
    succeed(&mut machine.authority.command(["lock", "--serial", &serial.to_string()]));
    crate::support::wait_for("the list", || (!machine.lets_in(&job)).then_some(()));
    refused("deploy", &certificate, "certificate", "RevokedKeys refuses it");
    machine.host(["check", "--user", "deploy"]).failed(2);
    check("-x", &certificate).failed(2);
    check("deploy", &ca.display().to_string()).failed(2).says(&["no certificate of OpenSSH's"]);
}

/// One that an operator has signed is told of before it ends, and after.
#[test]
fn the_end_of_a_host_certificate_is_told() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    machine.install([]).good();
    let (ca, key) = (machine.path("ca"), machine.path("host.pub"));
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&ca));
    std::fs::write(&key, machine.sh("cat /etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
    machine.sh(&format!("cat {}.pub >> /var/lib/machine-id-host/trust/ssh_host_ca.pub", ca.display()));
    for (times, code, words) in [
        ("-1m:+90d", 0, ""),
        ("-1m:+60d", 0, ""),
        ("-60d:+15d", 0, ""),
        ("-60d:+13d", 0, "warning: HostCertificate: "),
        ("-60d:-1m", 6, "it has ended at "),
        ("+1d:+60d", 6, "it is valid from "),
        // Renewed three times in a week: two of them have failed.
        ("-5d:+2d", 0, "warning: HostCertificate: "),
        ("-2d:+5d", 0, ""),
    ] {
        let mut sign = command("ssh-keygen");
        sign.args(["-q", "-h", "-s"]).arg(&ca).args(["-I", "x", "-n", "127.0.0.1", "-V", times]);
        succeed(sign.arg(&key));
        machine.sh(&format!(
            "cp {} /etc/ssh/machine-id-host/ssh_host-cert.pub",
            machine.path("host-cert.pub").display()
        ));
        let outcome = machine.host(["check"]);
        let outcome = ended(outcome, code);
        let is_told = !words.is_empty() && outcome.stdout.contains(words);
        assert_eq!(is_told, !words.is_empty(), "{times}: {}", outcome.stdout);
        assert_eq!(
            outcome.stdout.contains("warning"),
            words.starts_with("warning"),
            "{times}: {}",
            outcome.stdout
        );
    }
}
