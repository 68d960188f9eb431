//! A login to the real `sshd` of this machine, on a free port of loopback,
//! as the user who runs the demo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::stage::{Server, Stage, free_port, words, write};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::terminal::print;

/// Where sshd keeps its privilege separation, which it needs when root starts it.
const PRIVSEP: &str = "/run/sshd";

/// `sshd`, if it and its companions are installed.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    // sshd wants to be called by its absolute path.
    find("ssh").and(find("ssh-keygen")).and_then(|_| find("sshd"))
}

pub(super) fn login(stage: &Stage, program: &Path, destination: &Path, login: &str) -> Result<()> {
    let dir = stage.dir.join("sshd");
    fs::create_dir(&dir).context(Kind::Destination, "cannot create a folder for sshd")?;
    let (host_key, log) = (dir.join("host_key"), dir.join("log"));
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key))?;
    let public = host_key.with_extension("pub");
    let sign = ["authority", "sign-host", "--principal", "127.0.0.1", "--data-dir"];
    let sign = words(&sign, &[&stage.data, &public]);
    write(&dir.join("host_key-cert.pub"), &stage.quietly(&sign)?)?;
    write(&dir.join("user_ca.pub"), &stage.quietly(&stage.export("ssh-user-ca"))?)?;

    let port = free_port()?;
    let config = dir.join("sshd_config");
    let dir = dir.display();
    write(
        &config,
        &format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {dir}/host_key\nHostCertificate {dir}/host_key-cert.pub\n\
             TrustedUserCAKeys {dir}/user_ca.pub\nAuthorizedKeysFile none\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nLogLevel VERBOSE\n"
        ),
    )?;
    // A machine that never started sshd lacks the folder; it is taken away again if it is ours.
    let made = rustix::process::geteuid().is_root() && fs::create_dir(PRIVSEP).is_ok();
    let shown = serve_and_log_in(program, &config, &log, port, destination, login);
    if made {
        let _ = fs::remove_dir(PRIVSEP);
    }
    shown
}

fn serve_and_log_in(
    program: &Path,
    config: &Path,
    log: &Path,
    port: u16,
    destination: &Path,
    login: &str,
) -> Result<()> {
    let _server = Server::start(Command::new(program).args(["-D", "-e", "-f"]).arg(config), port, log)?;
    let config = destination.join("ssh_config");
    let target = format!("{login}@127.0.0.1");
    let greeting = "echo \"hello from $(id -un) on a host that was verified by its certificate\"";
    print(&format!("$ ssh -F {} -p {port} {target} '{greeting}'\n", config.display()))?;
    run(Command::new("ssh").arg("-F").arg(&config).args(["-p", &port.to_string(), &target, greeting]))?;
    print("and in sshd's own log, which run that was:\n")?;
    let said = read::text(log, Trust::Anyone, Limit::FILE)?;
    let accepted = said.lines().find(|line| line.starts_with("Accepted publickey")).unwrap_or_default();
    print(&format!("{accepted}\n"))?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().context(Kind::Internal, "cannot run a program")?;
    if status.success() { Ok(()) } else { Err(Error::internal(format!("{command:?} ended with {status}"))) }
}
