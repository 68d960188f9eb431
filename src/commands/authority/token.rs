//! `machine-id authority token add`: a secret that registers one worker.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::json;
use zeroize::Zeroizing;

use crate::authority::config::Config;
use crate::authority::keys;
use crate::authority::policy::{JoinToken, Policy};
use crate::authority::store::instances::{InstanceAdmin as _, NewSecret};
use crate::authority::store::sqlite::Sqlite;
use crate::cli::Format;
use crate::cli::authority::AddToken;
use crate::clock::{Clock, rfc3339};
use crate::document::parse_duration;
use crate::error::{Error, Result};
use crate::join::METHODS;
use crate::net;
use crate::random;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{did_you_mean, shown};

/// What every secret begins with, so that whoever finds one knows what it is.
const PREFIX: &str = "mid-reg-";
/// The longest that a secret may be good, in seconds.
const MAX_TTL: i64 = 30 * 86_400;

/// Makes the secret, keeps its hash, and shows it once.
///
/// # Errors
/// `Kind::Usage` where there is no such join token, or its workers do not register.
pub(super) fn add(args: &AddToken) -> Result<()> {
    let config = Config::load(&args.data.data_dir)?;
    let policy = config.load_policy()?;
    let token = join_token(&policy, &args.token)?;
    let ttl = parse_duration(&args.ttl).map_err(|why| Error::usage(format!("`--ttl`: {why}")))?;
    let ttl = i64::try_from(ttl).ok().filter(|ttl| *ttl <= MAX_TTL);
    let ttl = ttl.ok_or_else(|| Error::usage("`--ttl` is longer than 30 days"))?;
    let mut bytes = Zeroizing::new([0; 32]);
    random::fill(bytes.as_mut())?;
    let secret = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_ref())));
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    let time = Clock::system().now();
    let expires = time.saturating_add(ttl);
    let entry = NewSecret {
        id: random::id("k")?,
        hash,
        token: token.name.clone(),
        bot: token.bot.clone(),
        time,
        expires,
    };
    let command = command(&config, token)?;
    let store = Sqlite::open(&config.store, config.owner)?;
    block_on(store.add_secret(entry))??;
    let page = Zeroizing::new(match args.format {
        Format::Text => format!(
            "a registration secret for join token `{}`, good for one worker until {}; it is shown this once:\n\n    {}\n\n\
             on the worker, with a directory of its own for DIR:\n\n    MACHINE_ID_REGISTRATION_SECRET={} \\\n    {command}\n\n\
             later runs need no secret: the same command without the first line\n",
            token.name,
            rfc3339(expires),
            *secret,
            *secret
        ),
        Format::Json => {
            let page = json!({
                "token": token.name,
                "secret": *secret,
                "expires_at": rfc3339(expires),
                "command": command,
            });
            format!("{page:#}\n")
        }
    });
    print(&page)
}

fn join_token<'p>(policy: &'p Policy, name: &str) -> Result<&'p JoinToken> {
    let registering = |token: &&JoinToken| token.method.registers;
    let token = policy.token(name).ok_or_else(|| {
        let mut names: Vec<&str> =
            policy.tokens().filter(registering).map(|token| token.name.as_str()).collect();
        names.sort_unstable();
        let error = Error::usage(format!("`--token`: the policy has no join token `{}`", shown(name)));
        let all = || (!names.is_empty()).then(|| format!("there is: {}", names.join(", ")));
        did_you_mean(name, &names).or_else(all).into_iter().fold(error, Error::hint)
    })?;
    if token.method.registers {
        return Ok(token);
    }
    let methods: Vec<&str> = METHODS.iter().filter(|one| one.registers).map(|one| one.name).collect();
    Err(Error::usage(format!(
        "`--token`: join token `{}` is of method `{}`, whose jobs do not register",
        token.name, token.method.name
    ))
    .hint(format!("secrets are for join tokens with `join_method: {}`", methods.join("` or `"))))
}

/// What to run on the worker, but for the secret.
fn command(config: &Config, token: &JoinToken) -> Result<String> {
    // Another certificate than our own is one that workers trust by themselves, or by a file that we do not know.
    let pin = if config.tls.is_none() {
        format!(" --ca-pin {}", net::pin_of(keys::file::load(&config.keys, config.owner)?.tls_certificate())?)
    } else {
        String::new()
    };
    Ok(format!(
        "machine-id once --authority {}{pin} --join-method {} --token {} --storage DIR",
        config.public_url, token.method.name, token.name
    ))
}
