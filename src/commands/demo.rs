//! `machine-id demo`: the whole loop on this machine, with the real commands:
//! each step runs this very binary, as a workflow or an operator would. Only
//! the platform is played, by a loopback issuer over TLS.

use std::time::Instant;

use crate::error::{Context as _, Error, Kind, Result};

mod issuer;
mod sshd;
mod stage;

use stage::{Stage, login_name, say, words};

/// Plays every step.
pub fn run() -> Result<()> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new()
        .prefix("machine-id-demo-")
        .tempdir()
        .context(Kind::Destination, "cannot create a temporary directory")?;
    let login = login_name()?;
    let stage = Stage::set(temporary.path(), &login)?;
    let _authority = stage.start_authority()?;

    say("A job proves who it is, and gets certificates for ten minutes")?;
    let destination = stage.dir.join("job");
    stage.show(&stage.once(&destination))?;
    say("What it got")?;
    stage.show(&words(&["inspect"], &[&destination]))?;

    match sshd::find() {
        Some(program) => {
            say("A login to a real sshd, which knows nothing but the authority's CA")?;
            sshd::login(&stage, &program, &destination, &login)?;
        }
        None => say("No sshd is installed here, so there is no login to show")?,
    }

    say("A token that somebody copied out of a log buys nothing")?;
    stage.replay()?;

    say("The job ends: everything is wiped and revoked")?;
    stage.show(&words(&["cleanup"], &[&destination]))?;
    if destination.exists() {
        return Err(Error::internal("the destination is still there"));
    }
    say("What the operator sees afterwards")?;
    stage.show(&words(&["authority", "audit", "--data-dir"], &[&stage.data]))?;
    say(&format!("Done in {:.1} s; nothing is left behind", began.elapsed().as_secs_f64()))
}
