//! What is in the client's memory while COMMAND runs.

use std::os::unix::fs::FileExt as _;

use super::{WAIT, world};
use crate::support::once::Job;
use crate::support::process::{Running, read};
use crate::support::wait_for;

/// Whether a text stands in what a process can write to, but for its stack, where its environment is.
fn holds(process: &Running, text: &str) -> bool {
    let memory = std::fs::File::open(format!("/proc/{}/mem", process.id())).unwrap();
    let maps = read(format!("/proc/{}/maps", process.id()));
    let mut writable = maps.lines().filter(|line| line.contains(" rw-p ") && !line.ends_with("[stack]"));
    writable.any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut part = vec![0; usize::try_from(end - start).unwrap()];
        memory.read_exact_at(&mut part, start).is_ok()
            && part.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn the_token_is_gone_while_the_command_runs() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look.
        return;
    }
    let world = world();
    let handed = Job::new().told(&world.authority, "github-deploy");
    std::fs::write(handed.path("jwt"), world.issuer.token("github", &world.authority.url()).mint()).unwrap();
    for (job, options) in
        [(handed, &["--join-method", "github", "--id-token-file", "jwt"][..]), (world.github(), &[])]
    {
        let arguments = ["once"].into_iter().chain(options.iter().copied()).chain(["--", "sh", "-c", WAIT]);
        let mut running = Running::start(job.command(arguments).stderr(std::process::Stdio::piped()));
        wait_for("COMMAND", || job.path("ready").exists().then_some(()));
        // The part that a token's kinds have in common, and that names the job.
        let minted = std::fs::read_to_string(job.path("jwt")).ok().or_else(|| world.issuer.minted().pop());
        let claims = minted.unwrap().split('.').nth(1).unwrap().to_owned();
        assert!(!holds(&running, &claims[..40]), "{options:?}");
        // That this test sees what is there: the authority's address is.
        assert!(holds(&running, &world.authority.url()));
        std::fs::write(job.path("end"), "").unwrap();
        assert!(running.wait().success(), "{}", running.stderr());
    }
}
