//! Killed at any step, `host install` and `host uninstall` leave an `sshd` that works, and the next run does the rest.

use crate::support::host::{Machine, can_be_had};
use crate::support::process::{run, succeed};

/// `machine-id host ARGS`, killed when it begins its `n`th such call to the system; whether it lived to its end.
fn killed_at(machine: &Machine, call: &str, n: usize, args: &[String]) -> bool {
    let mut host = machine.command("strace");
    host.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    host.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}"), "/usr/local/bin/machine-id", "host"]);
    let output = run(host.args(args));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || output.status.code().is_none() || output.status.code() == Some(137),
        "{stderr}"
    );
    output.status.success()
}

/// At every `step`th of the calls by which files come and go, and programs are started.
fn killed(call: &str, first: usize, step: usize) {
    if !can_be_had() {
        return;
    }
    let machine = Machine::start();
    let job = machine.job("job");
    let before = machine.state();
    let sound = |when: &str| {
        succeed(machine.command("/usr/sbin/sshd").arg("-t"));
        assert!(machine.lets_in_as_before(), "{when}: {}", machine.log());
    };
    for n in (first..).step_by(step) {
        let args = |what: &str| -> Vec<String> {
            let mut args = vec![what.to_owned()];
            if what == "install" {
                args.extend(machine.joins());
                args.extend(["--labels", "env=prod", "--end-sessions"].map(str::to_owned));
            }
            args
        };
        let installed = killed_at(&machine, call, n, &args("install"));
        sound(&format!("install, {call} {n}"));
        let rest = run(machine.host_command([]).args(args("install")));
        assert!(rest.status.success(), "{call} {n}: {}", String::from_utf8_lossy(&rest.stderr));
        assert!(machine.lets_in(&job), "{call} {n}: {}", machine.log());
        machine.host(["check"]).good();
        let uninstalled = killed_at(&machine, call, n, &args("uninstall"));
        sound(&format!("uninstall, {call} {n}"));
        machine.host(["uninstall"]).good();
        assert_eq!(machine.state(), before, "{call} {n}");
        if installed && uninstalled {
            assert!(n > 4, "it has made so many");
            return;
        }
    }
}

#[test]
fn before_any_file_is_put_in_place() {
    killed("renameat", 1, 1);
}

#[test]
fn before_any_file_is_taken_away() {
    killed("unlinkat", 1, 1);
}

#[test]
fn before_any_program_is_started() {
    killed("clone3", 1, 2);
}
