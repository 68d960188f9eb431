//! `machine-id authority …`. These commands open the data directory; there is
//! no administration over the network.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rcgen::PublicKeyData as _;
use rustix::fs::Mode;

use crate::authority::issue::{request, ssh::HostPlan, x509::ServerPlan};
use crate::authority::store::{NewCertificate, NewSigned, Store as _, sqlite::Sqlite};
use crate::authority::{Authority, all_mistakes, config, keys, serve};
use crate::cli::authority::{Command, Export, Exported, Init, Serve, SignHost, SignServer, TokenCommand};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::{PRIVATE_FILE, PUBLIC_FILE, replace, trust};
use crate::{document, net, random};

mod answer;
mod audit;
mod check;
mod explain;
mod instances;
mod token;

/// Runs it.
///
/// # Errors
/// Whatever ended it.
pub fn run(command: Command, env: &Environment) -> Result<ExitCode> {
    match command {
        Command::Check(args) => return check::run(&args, env),
        Command::Init(args) => init(&args),
        Command::Serve(args) => run_server(&args),
        Command::Export(args) => export(&args),
        Command::SignHost(args) => sign_host(args),
        Command::SignServer(args) => sign_server(args),
        Command::Audit(args) => audit::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Token(TokenCommand::Add(args)) => token::add(&args),
        Command::Instances(args) => instances::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Creates a data directory.
///
/// # Errors
/// `Kind::Usage` where there is one already, or it cannot be written.
pub fn init(args: &Init) -> Result<()> {
    let cluster = config::check_cluster(&args.cluster)
        .map_err(|why| Error::usage(format!("`--cluster` {why}")).hint("for example id.example.com"))?;
    let public_url = config::check_public_url(&args.public_url)
        .map_err(|why| Error::usage(format!("`--public-url` {why}")))?;
    let dir = &args.data.data_dir;
    let file = dir.join(config::FILE);
    if file.exists() || dir.join("keys").exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    let private = |path: &Path| {
        replace::make_private(path).context(Kind::Usage, format!("cannot create {}", path.display()))
    };
    private(dir)?;
    // One that was there may be open to others, and so may be what it stands in.
    trust::operators(dir)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {}", dir.display())))?;
    private(&dir.join("policy"))?;
    keys::file::create(&dir.join("keys"), &cluster, Clock::system().now())?;
    // The configuration comes last: a directory without one was not finished.
    let text = format!(
        "version: v1\ncluster: '{cluster}'\npublic_url: {public_url}  # the audience that OIDC tokens must carry\n\
         listen: 127.0.0.1:8443\nstore: sqlite:authority.db\nkeys: file:keys\npolicy: policy\n"
    );
    write_new(&file, text.as_bytes(), PRIVATE_FILE)?;
    super::print(&format!(
        "created {}\n\nput bots, roles and join tokens into {}, then run:\n\n    machine-id authority serve --data-dir {}\n",
        dir.display(),
        dir.join("policy").display(),
        dir.display()
    ))
}

fn write_new(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    replace::write_new(path, bytes, mode).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::usage(format!("{} exists already", path.display())).hint("move it away first")
        }
        _ => Error::usage(format!("cannot write {}: {error}", path.display())),
    })
}

fn run_server(args: &Serve) -> Result<()> {
    let authority = Arc::new(Authority::open(&args.data.data_dir, Clock::system())?);
    let listen = args.listen.unwrap_or(authority.config().listen);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(Kind::Internal, "cannot start the runtime")?
        .block_on(serve::serve(authority, listen))
}

fn export(args: &Export) -> Result<()> {
    let config = config::Config::load(&args.data.data_dir)?;
    let keys = keys::file::load(&config.keys)?;
    let trust = keys.trust();
    let text = match args.what {
        Exported::SshUserCa => trust.ssh_user_cas.join("\n"),
        Exported::SshHostCa => trust.ssh_host_cas.join("\n"),
        Exported::TlsCa => trust.tls_cas.concat().trim_end().to_owned(),
        Exported::TlsCaPin => net::pin_of(keys.tls_certificate())?,
        // Patterns without a port do not cover other ports; `*` does (sshd(8)).
        Exported::KnownHosts => {
            let line = |ca: &String| format!("@cert-authority * {ca}");
            trust.ssh_host_cas.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    super::print(&format!("{text}\n"))
}

/// Opens what a signing command needs: keys, and the store that records it first.
fn open(data_dir: &Path) -> Result<(keys::CaKeys, Sqlite)> {
    let config = config::Config::load(data_dir)?;
    Ok((keys::file::load(&config.keys)?, Sqlite::open(&config.store)?))
}

fn record(store: &Sqlite, by: &'static str, certificate: NewCertificate) -> Result<()> {
    let entry = NewSigned { id: random::id("s")?, time: Clock::system().now(), by, certificate };
    crate::once::block_on(store.record_signed(entry))?
}

fn ttl(text: &str) -> Result<i64> {
    let seconds = document::parse_duration(text).map_err(|why| Error::usage(format!("`--ttl`: {why}")))?;
    match i64::try_from(seconds) {
        // Ten years, which is how long the CA itself lives.
        Ok(seconds) if seconds <= 3650 * 86_400 => Ok(seconds),
        _ => Err(Error::usage("`--ttl` is longer than ten years")),
    }
}

fn sign_host(args: SignHost) -> Result<()> {
    let line = read::text(&args.key, Trust::Anyone, Limit::FILE)?;
    let plan = HostPlan::new(&line, args.principals, Clock::system().now(), ttl(&args.ttl)?)
        .map_err(|error| error.context(format!("cannot certify {}", args.key.display())))?;
    let (keys, store) = open(&args.data.data_dir)?;
    record(&store, "sign-host", plan.record()?)?;
    super::print(&format!("{}\n", plan.sign(&keys)?))
}

fn sign_server(args: SignServer) -> Result<()> {
    let (now, ttl) = (Clock::system().now(), ttl(&args.ttl)?);
    if let Some(csr) = &args.csr {
        let text = read::text(csr, Trust::Anyone, Limit::FILE)?;
        let spki = request::csr_key(&text)
            .map_err(|why| Error::usage(format!("cannot certify {}: {why}", csr.display())))?;
        let plan = ServerPlan::new(spki, args.names, now, ttl)?;
        let (keys, store) = open(&args.data.data_dir)?;
        record(&store, "sign-server", plan.record())?;
        return super::print(&plan.sign(&keys)?);
    }
    let out = args.out.unwrap_or_default();
    let pair = rcgen::KeyPair::generate().context(Kind::Internal, "cannot make a TLS key")?;
    let plan = ServerPlan::new(pair.subject_public_key_info(), args.names, now, ttl)?;
    let (keys, store) = open(&args.data.data_dir)?;
    replace::make_private(&out).context(Kind::Usage, format!("cannot create {}", out.display()))?;
    // Nothing is signed for files that cannot be written.
    let key = zeroize::Zeroizing::new(pair.serialize_pem());
    write_new(&out.join("server.key"), key.as_bytes(), PRIVATE_FILE)?;
    record(&store, "sign-server", plan.record())?;
    write_new(&out.join("server.crt"), plan.sign(&keys)?.as_bytes(), PUBLIC_FILE)?;
    write_new(&out.join("ca.crt"), keys.trust().tls_cas.concat().as_bytes(), PUBLIC_FILE)
}
