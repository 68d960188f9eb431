//! `host install`, `host uninstall` and `host check` on machines of their own, with the real `sshd`.

use crate::support::host::{Machine, can_be_had};
use crate::support::process::{self, machine_id, read, run, succeed};
use crate::support::wait_for;

mod checked;
mod killed;

const SNIPPET: &str = "/etc/ssh/sshd_config.d/50-machine-id.conf";

/// What was written, by an answer.
fn lines(stdout: &str) -> Vec<&str> {
    stdout.lines().collect()
}

#[test]
fn one_command_sets_a_host_up_and_one_takes_it_back() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    let (job, before) = (machine.job("job"), machine.state());
    assert!(!machine.lets_in(&job) && machine.lets_in_as_before());
    let installed = machine.install(["--labels", "env=prod,team=web", "--end-sessions"]).good();
    assert_eq!(lines(&installed.stdout).last(), Some(&SNIPPET), "{}", installed.stdout);
    assert_eq!(machine.asked().last().unwrap(), "daemon-reload");
    assert!(machine.lets_in(&job) && machine.lets_in_as_before(), "{}", machine.log());
    for path in lines(&installed.stdout) {
        let text = machine.sh(&format!("cat {path}"));
        assert!(text.starts_with("# machine-id host install "), "{path}: {text}");
    }

    // The second time there is nothing to do, and nothing is asked of the network.
    let after = machine.state();
    let again = machine.install(["--labels", "env=prod,team=web", "--end-sessions"]).good();
    again.says(&["nothing to do: everything is in place"]);
    assert_eq!((again.stdout.as_str(), machine.asked()), ("", Vec::new()));
    assert_eq!(machine.state(), after);

    // What is revoked is out at once, and its session ends.
    let mut session = machine.ssh(&job, "echo in; exec sleep 600");
    let mut session = process::Running::start(session.stdout(std::process::Stdio::piped()));
    wait_for("the session", || session.stdout().contains("in").then_some(()));
    let serial = ssh_key::Certificate::from_openssh(&read(job.join("key-cert.pub"))).unwrap().serial();
    succeed(&mut machine.authority.command(["lock", "--serial", &serial.to_string()]));
    wait_for("the session's end", || session.ended());
    assert!(!machine.lets_in(&job));
    let other = machine.job("other");
    assert!(machine.lets_in(&other), "{}", machine.log());

    // Other options change what they are about.
    let fewer = machine.install(["--labels", "env=dev"]).good();
    let changed = lines(&fewer.stdout);
    assert_eq!(changed.first(), Some(&SNIPPET), "{changed:?}");
    assert!(changed.contains(&"/etc/systemd/system/machine-id-end-sessions.service"), "{changed:?}");
    assert!(machine.asked().contains(&"disable --now machine-id-end-sessions.service".to_owned()));
    assert!(!machine.lets_in(&other), "it has other labels");

    let gone = machine.host(["uninstall", "--format", "json"]).good();
    let told: serde_json::Value = serde_json::from_str(&gone.stdout).unwrap();
    assert_eq!(
        (&told["left"], &told["reloaded"]),
        (&serde_json::json!([]), &serde_json::json!("ssh.service"))
    );
    assert_eq!(machine.state(), before);
    assert!(!machine.lets_in(&other) && machine.lets_in_as_before());
    machine.asked();
    machine.host(["uninstall"]).good().says(&["nothing to do"]);
    assert_eq!(machine.asked(), Vec::<String>::new());
}

/// A certificate that an operator has signed, no labels, a timer, and an `sshd` that reads no drop-ins.
#[test]
fn a_certificate_that_was_signed_by_hand_is_used() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    machine.sh("sed -i /^Include/d /etc/ssh/sshd_config; rmdir /etc/ssh/sshd_config.d; chmod 600 /etc/ssh/sshd_config");
    let before = machine.state();
    let sign = |key: &str, more: &[&str]| {
        let public = machine.path("host.pub");
        std::fs::write(&public, machine.sh(&format!("cat {key}.pub"))).unwrap();
        let mut sign = machine.authority.command(["sign-host", "--principal", "127.0.0.1"]);
        std::fs::write(machine.path("cert.pub"), succeed(sign.args(more).arg(&public))).unwrap();
    };
    let pin = succeed(&mut machine.authority.command(["export", "tls-ca-pin"]));
    let (url, certificate) = (machine.authority.url(), machine.path("cert.pub").display().to_string());
    let install = |more: &[&str]| {
        let mut install =
            machine.host_command(["install", "--authority", &url, "--ca-pin", pin.trim(), "--timer"]);
        crate::support::once::Outcome::of(&run(install.args(["--host-certificate", &certificate]).args(more)))
    };
    // One that is no good is found out before anything is done.
    succeed(
        process::command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(machine.path("stranger")),
    );
    sign(&machine.path("stranger").display().to_string(), &[]);
    install(&[]).failed(2).says(&["is for no HostKey of sshd's", "/etc/ssh/ssh_host_ed25519_key"]);
    let elsewhere = Machine::start();
    sign("/etc/ssh/ssh_host_ecdsa_key", &[]);
    let mut other = elsewhere.authority.command(["sign-host", "--principal", "127.0.0.1"]);
    let foreign = succeed(other.arg(machine.path("host.pub")));
    let own = read(machine.path("cert.pub"));
    std::fs::write(machine.path("cert.pub"), foreign).unwrap();
    install(&[]).failed(2).says(&["this authority has not signed it", "sign-host"]);
    assert_eq!(machine.state(), before);

    std::fs::write(machine.path("cert.pub"), own).unwrap();
    let done = install(&[]).good();
    assert_eq!(lines(&done.stdout).last(), Some(&"/etc/ssh/sshd_config"), "{}", done.stdout);
    assert_eq!(machine.sh("stat -c %a /etc/ssh/sshd_config"), "600\n");
    assert!(machine.sh(&format!("cat {SNIPPET}")).contains("host principals --labels= %u %k\n"));
    // Its role has labels, and this host has none.
    let job = machine.job("job");
    assert!(!machine.lets_in(&job));
    install(&["--labels", "env=prod"]).good();
    assert!(machine.lets_in(&job), "{}", machine.log());
    install(&["--labels", "env=prod"]).good().says(&["nothing to do"]);
    machine.host(["uninstall"]).good();
    machine.sh("rmdir /etc/ssh/sshd_config.d");
    assert_eq!(machine.state(), before);
}

#[test]
fn what_fails_changes_nothing() {
    if !can_be_had() {
        // Whoever is not root hears that it takes that.
        let mut install =
            machine_id(["host", "install", "--authority", "https://127.0.0.1:9", "--host-certificate", "x"]);
        assert_eq!(run(&mut install).status.code(), Some(2));
        return;
    }
    let machine = Machine::start();
    let fails = |prepare: &str, code: i32, says: &[&str], restore: &str| {
        machine.sh(prepare);
        let before = machine.state();
        machine.install([]).failed(code).says(says);
        assert_eq!(machine.state(), before, "{prepare}");
        let asked = machine.asked();
        machine.sh(restore);
        asked
    };
    let by_hand = "docs/resources/ssh.md";
    fails(
        "echo Nonsense >> /etc/ssh/sshd_config",
        2,
        &["sshd -t", "Nonsense"],
        "sed -i /Nonsense/d /etc/ssh/sshd_config",
    );
    for line in [
        "TrustedUserCAKeys /etc/ssh/other.pub",
        "RevokedKeys /etc/ssh/plain.pub",
        "AuthorizedPrincipalsFile .p",
    ] {
        let word = line.split(' ').next().unwrap();
        let asked = fails(
            &format!("echo {line} >> /etc/ssh/sshd_config"),
            2,
            &[&format!("sshd has a {word} already"), by_hand],
            &format!("sed -i /{word}/d /etc/ssh/sshd_config"),
        );
        assert_eq!(asked, Vec::<String>::new());
    }
    for path in [SNIPPET, "/etc/systemd/system/machine-id-watch.service", "/etc/tmpfiles.d/machine-id.conf"] {
        let says = format!("{path} is there, and `host install` has not written it");
        fails(&format!("echo '# by hand' > {path}"), 2, &[&says], &format!("rm {path}"));
    }
    fails("mkdir /etc/ssh/machine-id-host", 2, &["has not made it"], "rmdir /etc/ssh/machine-id-host");
    fails(
        "mv /run/systemd/system /run/away",
        2,
        &["systemd does not run here", by_hand],
        "mv /run/away /run/systemd/system",
    );
    fails(
        "chmod o+w /usr/local/bin",
        2,
        &["cannot be sshd's command", "/usr/local/bin"],
        "chmod o-w /usr/local/bin",
    );
    let wrong = machine.host([
        "install",
        "--authority",
        "https://127.0.0.1:9",
        "--token",
        "web",
        "--join-method",
        "tokn",
    ]);
    wrong.failed(2).says(&["there is no join method `tokn`", "`token`"]);
    // A token that gives it nothing: users are gone again, and so is all that was written.
    let before = machine.state();
    let mut refused = machine.joins();
    let at = refused.iter().position(|arg| arg == "127.0.0.1").unwrap();
    refused[at] = "db.example.com".to_owned();
    let refused = run(machine.host_command(["install"]).args(refused));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("no certificate for this host") && stderr.contains("ssh-hosts.md"), "{stderr}");
    machine.sh("rm -rf /var/lib/machine-id-host-storage");
    assert_eq!(machine.state(), before);
    // Where `sshd` cannot be reloaded, it goes on as before.
    machine.sh("sed -i 's/^    try-reload-or-restart)/&\\n [[ ! -e \\/run\\/broken ]] || { rm \\/run\\/broken; echo broken >\\&2; exit 1; }/' /usr/local/sbin/systemctl; touch /run/broken");
    machine.install([]).failed(1).says(&["try-reload-or-restart ssh.service", "broken"]);
    assert!(machine.lets_in_as_before());
    assert_eq!(machine.sh("ls -A /etc/ssh/sshd_config.d; getent passwd | grep machine-id || true"), "");
    let mut machine = machine;
    machine.authority.kill();
    let before = machine.state();
    let gone = run(machine
        .host_command(["install", "--authority", &machine.authority.url(), "--principal", "127.0.0.1"])
        .args(["--token", "web", "--join-method", "token"]));
    assert_eq!(gone.status.code(), Some(5), "{}", String::from_utf8_lossy(&gone.stderr));
    assert_eq!(machine.state(), before);
}

#[test]
fn what_somebody_has_edited_is_left() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    let job = machine.job("job");
    machine.install(["--labels", "env=prod"]).good();
    let unit = "/etc/systemd/system/machine-id-watch.service";
    machine.sh(&format!("echo '# by hand' >> {unit}"));
    machine.install(["--labels", "env=dev"]).failed(2).says(&["machine-id-watch.service was edited"]);
    assert!(machine.lets_in(&job));
    // `sshd` needs what its lines name, so all of it stays.
    machine.sh(&format!("cp {SNIPPET} /run/kept; echo '# by hand' >> {SNIPPET}"));
    let before = machine.state();
    machine
        .host(["uninstall"])
        .failed(2)
        .says(&["sshd would go on by what is to be taken away", "was edited"]);
    machine.sh(&format!("cp /run/kept {SNIPPET}; echo 'RevokedKeys /var/lib/machine-id-host/trust/revoked.krl' >> /etc/ssh/sshd_config"));
    machine.host(["uninstall"]).failed(2).says(&["sshd would go on", "revokedkeys"]);
    assert!(machine.lets_in(&job), "{}", machine.log());
    machine.sh(&format!("sed -i /^RevokedKeys/d /etc/ssh/sshd_config; echo '# by hand' >> {SNIPPET}"));
    assert_eq!(machine.state(), before);
    machine.sh(&format!("cp /run/kept {SNIPPET}"));
    let gone = machine.host(["uninstall"]).good();
    gone.says(&["left as it is: /etc/systemd/system/machine-id-watch.service was edited", "may be in use"]);
    assert_eq!(
        machine.sh("ls /etc/systemd/system/machine-id* /etc/ssh/sshd_config.d"),
        format!("{unit}\n\n/etc/ssh/sshd_config.d:\n")
    );
    assert!(machine.sh("ls /var/lib/machine-id-host/trust").contains("revoked.krl"));
    assert!(!machine.lets_in(&job) && machine.lets_in_as_before());
}

/// The watcher may have put anything into its folder: root follows no link there.
#[test]
fn links_of_the_watchers_lead_root_nowhere() {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    machine.install([]).good();
    machine
        .sh("mkdir /etc/kept; touch /etc/kept/tls.crl /etc/kept/known_hosts; cd /var/lib/machine-id-host; \
                rm -rf trust; ln -s /etc/kept trust; chown -h machine-id-host: trust");
    machine.host(["uninstall"]).good().says(&["/var/lib/machine-id-host holds something else"]);
    assert_eq!(machine.sh("ls /etc/kept"), "known_hosts\ntls.crl\n");
}
