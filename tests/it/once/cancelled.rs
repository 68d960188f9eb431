//! A job that is cancelled: what the runners do to a step, in their own time.
//!
//! GitHub's signals the step's shell alone: INT, 7.5 s later TERM, 2.5 s later
//! the kill; steps with `always()` follow, and what is left is killed. Azure's
//! does so to its task, which answers INT with a TERM for the shell. In a
//! container only `docker exec` is signalled, and nothing inside.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{WAIT, all_revoked, events, files, issuances, world};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, Outcome, World};
use crate::support::process::{self, MACHINE_ID, Running};
use crate::support::wait_for;

/// The time between INT and TERM, and between TERM and the kill, of GitHub's and Azure's runners.
const RUNNERS: (Duration, Duration) = (Duration::from_millis(7500), Duration::from_millis(2500));
/// The same for what needs no patience.
const SHORT: (Duration, Duration) = (Duration::from_millis(100), RUNNERS.1);

/// A step's shell, which runs a file as the runners have it.
fn shell(job: &Job, arguments: &[&str], script: &str) -> Running {
    let step = job.path("step.sh");
    std::fs::write(&step, script.replace("machine-id", MACHINE_ID)).unwrap();
    let mut command = process::command("bash");
    command.args(arguments).arg(&step).current_dir(job.path("")).envs(job.environment());
    let running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running
}

/// INT, TERM and the end of a process, as far as it takes them.
fn cancel(step: &mut Running, (int, term): (Duration, Duration)) {
    step.signal(Signal::INT);
    if step.wait_at_most(int).is_none() {
        step.signal(Signal::TERM);
        thread::sleep(term);
        step.kill();
    }
}

/// A COMMAND that says which process it is, and does as little as it can about its end.
const COMMAND: &str = "echo $$ > pid; touch ready; sleep 60; :";

fn pid(job: &Job) -> Pid {
    job.said("pid").trim().parse().ok().and_then(Pid::from_raw).unwrap()
}

fn is_there(job: &Job) -> bool {
    test_kill_process(pid(job)).is_ok()
}

/// Asserts that no key, no certificate that is good, and no COMMAND is left.
#[track_caller]
fn nothing_is_left(job: &Job) {
    wait_for("COMMAND's end", || (!is_there(job)).then_some(()));
    wait_for("the run's end", || job.left().is_empty().then_some(()));
}

/// A job with a file that runs `once`, as many have.
fn with_file(world: &World) -> Job {
    let job = world.github().env("GITHUB_JOB", "deploy").env("RUNNER_NAME", "one");
    let script = format!("#!/bin/bash\n{MACHINE_ID} once -- sh -c '{COMMAND}'\necho after\n");
    std::fs::write(job.path("deploy.sh"), script).unwrap();
    std::fs::set_permissions(job.path("deploy.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    job
}

#[test]
fn a_step_that_githubs_runner_cancels_leaves_nothing() {
    let world = world();
    let once = format!("machine-id once -- sh -c '{COMMAND}'");
    let deaf = format!("machine-id once -- sh -c \"trap '' INT TERM; {COMMAND}\"").replace('$', "\\$");
    let nested = [format!("x=$({once}); echo $x"), "./deploy.sh".to_owned()];
    let scripts = [once.clone(), format!("exec {once}"), deaf.clone(), format!("exec {deaf}")]
        .into_iter()
        .chain(nested);
    thread::scope(|scope| {
        for script in scripts {
            let world = &world;
            scope.spawn(move || {
                let job = with_file(world);
                let mut step = shell(&job, &["-e"], &script);
                cancel(&mut step, RUNNERS);
                // Now, before anything of the job's own looks after it.
                assert!(files(&job.path("temp")).is_empty(), "{script}: {}", step.stderr());
                if script.contains("trap") {
                    // What the runner does to the rest.
                    let _ = kill_process(pid(&job), Signal::KILL);
                    job.run(["cleanup"]).good();
                }
                nothing_is_left(&job);
                assert_eq!(job.run(["cleanup"]).good().stderr, "", "{script}");
            });
        }
    });
    assert_eq!(all_revoked(&world), 6);
}

#[test]
fn a_step_that_azures_agent_cancels_leaves_nothing() {
    let world = world();
    let once = format!("machine-id once -- sh -c '{COMMAND}'");
    // The tasks `script` and `bash` send their shell TERM; one that does not ends itself.
    let told = "bash --noprofile --norc step.sh & trap \"kill -TERM $!\" INT; wait; wait";
    let silent = "trap - INT; bash --noprofile --norc step.sh; exit";
    for (task, script) in [
        (told, once.clone()),
        (told, format!("exec {once}")),
        (silent, once.clone()),
        (silent, "./deploy.sh".into()),
    ] {
        let job = with_file(&world);
        std::fs::write(job.path("step.sh"), script.replace("machine-id", MACHINE_ID)).unwrap();
        let mut command = process::command("bash");
        command.args(["-c", task]).current_dir(job.path("")).envs(job.environment());
        let mut agent = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_for("COMMAND", || job.path("ready").exists().then_some(()));
        if task == silent {
            agent.signal(Signal::KILL);
        } else {
            cancel(&mut agent, RUNNERS);
        }
        nothing_is_left(&job);
    }
    assert_eq!(all_revoked(&world), 4);
}

/// Enters the namespaces of a process.
fn inside(pid: u32, folder: &Path, program: &str) -> Command {
    let mut command = process::command("nsenter");
    command
        .args(["--target", &pid.to_string(), "--pid", "--mount"])
        .arg(format!("--wd={}", folder.display()));
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.arg(program);
    command
}

#[test]
fn a_container_job_is_ended_by_its_own_cleanup() {
    let world = world();
    let job = with_file(&world);
    // As `docker create --init` or an entry point that sleeps: process 1 knows of no step.
    let mut init = process::command("unshare");
    if !rustix::process::geteuid().is_root() {
        init.args(["--user", "--map-root-user"]);
    }
    init.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "touch up; sleep 60; :"]);
    let init = Running::start(init.current_dir(job.path("")));
    wait_for("the container", || job.path("up").exists().then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", init.id());
    let first: u32 = process::read(children).trim().parse().unwrap();
    std::fs::write(job.path("step.sh"), "./deploy.sh").unwrap();
    let mut exec = inside(first, &job.path(""), "setsid");
    exec.args(["--wait", "sh", "-e", "step.sh"]).envs(job.environment());
    let mut exec = Running::start(exec.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    exec.kill();
    assert!(!files(&job.path("temp")).is_empty() && events(&world, "revoked").is_empty());
    // From outside, that number is another process's, which nobody is told to kill.
    let outside = world.github().env("XDG_RUNTIME_DIR", job.text_path("runtime")).run(["cleanup"]).good();
    outside.says(&["left alone: the run of process ", " (out of reach, as in another container)"]);
    let mut cleanup = inside(first, &job.path(""), MACHINE_ID);
    cleanup.arg("cleanup").envs(job.environment());
    let outcome = Outcome::of(&process::run(&mut cleanup)).good();
    outcome.says(&["ending the run of process ", " of this job"]);
    assert!(job.left().is_empty(), "{:?}", job.left());
    assert_eq!(all_revoked(&world), 1);
}

#[test]
fn the_end_of_the_shell_ends_an_exchange() {
    let world = world();
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    for (asked, arguments) in ["", " -- true"].into_iter().enumerate() {
        let job = world.github();
        let script = format!("touch ready; machine-id once{arguments} 2> told; :");
        let mut step = shell(&job, &["-e"], &script);
        wait_for("the request", || (world.issuer.count(Endpoint::Token) > asked).then_some(()));
        cancel(&mut step, SHORT);
        wait_for("its end", || job.left().is_empty().then_some(()));
        let told = "ended with a process that started it, such as its shell (what is to outlive that is started with `setsid` or `nohup`)";
        wait_for("the reason", || job.said("told").contains(told).then_some(()));
    }
    assert!(events(&world, "issued").is_empty());
}

#[test]
fn what_is_started_to_stay_stays() {
    let world = world();
    for start in ["nohup machine-id", "setsid machine-id", "( (sleep 0.3; exec machine-id"] {
        let job = world.github();
        // The shell that was there for the last one alone is gone before anything is watched.
        let end = if start.starts_with('(') { ")& )" } else { " &" };
        let script =
            format!("{start} once -- sh -c '{WAIT}' > told 2>&1{end}\nwhile ! [ -e ready ]; do :; done");
        let mut step = shell(&job, &["-e"], &script);
        assert!(step.wait().success());
        thread::sleep(Duration::from_millis(1500));
        let goes_on = !files(&job.path("temp")).is_empty();
        assert!(goes_on, "{start}: {}", job.said("told"));
        std::fs::write(job.path("end"), "").unwrap();
        wait_for("its end", || job.left().is_empty().then_some(()));
    }
    // Without a word that it is to stay it ends with the step, and says why.
    let job = world.github();
    let script =
        format!("machine-id once -- sh -c '{COMMAND}' > told 2>&1 &\nwhile ! [ -e ready ]; do :; done");
    shell(&job, &["-e"], &script).wait();
    nothing_is_left(&job);
    assert!(job.said("told").contains("ending with a process that started it, such as its shell"));
    assert_eq!(all_revoked(&world), 4);
}

#[test]
fn a_shell_that_ignores_hup_itself_is_watched() {
    let world = world();
    let job = world.github();
    let mut step = shell(&job, &["-e"], &format!("trap '' HUP; machine-id once -- sh -c '{COMMAND}'; :"));
    cancel(&mut step, SHORT);
    nothing_is_left(&job);
    assert_eq!(all_revoked(&world), 1);
}

#[test]
fn an_interrupted_command_keeps_its_certificates_while_it_ends() {
    let world = world();
    let unlocks = "trap 'sleep 5; ls $MACHINE_ID_DESTINATION/key && touch unlocked; exit 3' INT; touch ready; \
                   while :; do sleep 0.05; done";
    let deaf = "trap 'touch heard' INT; trap '' TERM; touch ready; while ! [ -e end ]; do sleep 0.05; done";
    thread::scope(|scope| {
        scope.spawn(|| {
            let job = world.github();
            let mut running = job.start(["--", "sh", "-c", unlocks]);
            wait_for("COMMAND", || job.path("ready").exists().then_some(()));
            running.signal(Signal::INT);
            assert_eq!(running.wait().code(), Some(3));
            assert!(job.path("unlocked").exists() && job.left().is_empty());
        });
        // Not for ever, and no longer than TERM gives, or a second INT.
        for (second, least, most) in
            [(None, 6.9, 20.0), (Some(Signal::TERM), 1.9, 6.5), (Some(Signal::INT), 1.9, 6.5)]
        {
            let world = &world;
            scope.spawn(move || {
                let job = world.github();
                let mut running = job.start(["--", "sh", "-c", deaf]);
                wait_for("COMMAND", || job.path("ready").exists().then_some(()));
                running.signal(Signal::INT);
                let start = Instant::now();
                if let Some(second) = second {
                    wait_for("the first", || job.path("heard").exists().then_some(()));
                    running.signal(second);
                }
                wait_for("the wiping", || files(&job.path("temp")).is_empty().then_some(()));
                let took = start.elapsed().as_secs_f64();
                assert!((least..most).contains(&took), "{second:?}: {took}");
                std::fs::write(job.path("end"), "").unwrap();
                running.wait();
            });
        }
    });
    assert_eq!(all_revoked(&world), 4);
}

#[test]
fn cleanup_ends_the_runs_of_its_own_job_alone() {
    let world = world();
    let (own, other) = (with_file(&world), with_file(&world).env("RUNNER_NAME", "two"));
    let unknown = with_file(&world).without("GITHUB_RUN_ID");
    // One registry, as of one user on one machine.
    let shared = own.text_path("runtime");
    let jobs = [own, other, unknown].map(|job| job.env("XDG_RUNTIME_DIR", &shared).env("TMPDIR", &shared));
    let deaf = "echo $$ > pid; trap '' TERM INT; touch ready; while :; do sleep 0.05; done";
    let mut runs: Vec<Running> = jobs.iter().map(|job| job.start(["--", "sh", "-c", COMMAND])).collect();
    for job in &jobs {
        wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    }
    std::fs::remove_file(jobs[0].path("ready")).unwrap();
    let mut second = jobs[0].start(["--", "sh", "-c", deaf]);
    wait_for("COMMAND", || jobs[0].path("ready").exists().then_some(()));
    let outcome = jobs[0].run(["cleanup"]).good();
    let number = |run: &Running| format!("the run of process {}, which has /", run.id());
    outcome.says(&[&format!("ending {}", number(&runs[0])), &format!("ending {}", number(&second))]);
    outcome.says(&[
        &format!("left alone: {}", number(&runs[1])),
        &format!("of another job (`kill {}` ends it)", runs[1].id()),
        &format!("of no known job (`kill {}` ends it)", runs[2].id()),
    ]);
    assert_eq!((runs[0].wait().code(), second.wait().code()), (Some(143), None));
    assert!(files(&jobs[0].path("temp")).is_empty() && !is_there(&jobs[0]), "the deaf one too");
    assert_eq!(issuances(&world, "revoked").len(), 2);
    for (run, job) in runs.iter_mut().zip(&jobs).skip(1) {
        assert!(run.ended().is_none() && is_there(job));
        run.signal(Signal::TERM);
        run.wait();
    }
    assert_eq!(all_revoked(&world), 4);
}

#[test]
fn cleanup_within_a_run_leaves_that_alone() {
    let world = world();
    let job = world.github();
    let script =
        format!("env -u MACHINE_ID_DESTINATION {MACHINE_ID} cleanup && ls $MACHINE_ID_DESTINATION/key");
    let outcome = job.once(["--", "sh", "-c", &script]).good();
    assert!(!outcome.stderr.contains("process"), "{}", outcome.stderr);
}

#[test]
fn command_does_not_outlive_a_run_that_is_killed() {
    let world = world();
    let job = world.github();
    let mut running = job.start(["--", "sh", "-c", &COMMAND.replace("sleep 60", "trap '' TERM; sleep 60")]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running.kill();
    wait_for("COMMAND's end", || (!is_there(&job)).then_some(()));
    job.run(["cleanup"]).good();
    nothing_is_left(&job);
    assert_eq!(all_revoked(&world), 1);
    // Nobody else has a use for it.
    let outcome = job.run(["tied-command", "1", "true"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
}
