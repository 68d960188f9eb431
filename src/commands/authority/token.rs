//! `machine-id authority token add`: a secret that registers one worker.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::data_dir;
use crate::authority::config::Config;
use crate::authority::policy::{JoinToken, Policy};
use crate::authority::store::instances::NewSecret;
use crate::cli::Format;
use crate::clock::{Clock, rfc3339};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::join::METHODS;
use crate::join::instance::secret_hash;
use crate::random;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{did_you_mean, shown};

/// What every secret begins with, so that whoever finds one knows what it is.
const PREFIX: &str = "mid-reg-";

/// Makes the secret, keeps its hash, and shows it once.
pub(super) fn add(data_dir: &Path, token: &str, ttl: &str, format: Format) -> Result<()> {
    let config = Config::load(data_dir)?;
    let policy = config.load_policy()?;
    let token = join_token(&policy, token)?;
    let ttl = data_dir::ttl(ttl, 30, "30 days")?;
    let mut bytes = Zeroizing::new([0; 32]);
    random::fill(bytes.as_mut())?;
    let secret = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_ref())));
    let time = Clock::system().now();
    let expires = time.saturating_add(ttl);
    let entry = NewSecret {
        id: random::id("k")?,
        hash: secret_hash(&secret),
        token: token.name.clone(),
        bot: token.bot.clone(),
        time,
        expires,
    };
    let command = command(&config, token)?;
    let store = data_dir::open_store(&config)?;
    block_on(store.add_secret(entry))??;
    let page = Zeroizing::new(match format {
        Format::Text => format!(
            "a registration secret for join token `{}`, good for one worker until {}; it is shown this once:\n\n    {}\n\n\
             on the worker, with a directory of its own for DIR:\n\n    MACHINE_ID_REGISTRATION_SECRET={} \\\n    {command}\n\n\
             later runs need no secret: the same command without the first line\n",
            token.name,
            rfc3339(expires),
            *secret,
            *secret
        ),
        Format::Json => format!(
            "{:#}\n",
            json!({
                "token": token.name, "secret": *secret, "expires_at": rfc3339(expires), "command": command,
            })
        ),
    });
    print(&page)
}

/// Withdraws the secrets of that join token that nobody has used.
pub(super) fn revoke(data_dir: &Path, token: &str, env: &Environment) -> Result<()> {
    let store = data_dir::open_store(&Config::load(data_dir)?)?;
    let (now, by) = (Clock::system().now(), data_dir::user(env));
    let withdrawn = block_on(store.withdraw_secrets(token.to_owned(), now, by))??;
    let token = shown(token);
    print(&match withdrawn {
        0 => {
            format!("join token `{token}` has no secret that is not used up: there is nothing to withdraw\n")
        }
        1 => format!("a registration secret of join token `{token}` is withdrawn\n"),
        many => format!("{many} registration secrets of join token `{token}` are withdrawn\n"),
    })
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
        format!(" --ca-pin {}", data_dir::open_with_keys(config)?.0.tls_pins()?)
    } else {
        String::new()
    };
    Ok(format!(
        "machine-id once --authority {}{pin} --join-method {} --token {} --storage DIR",
        config.public_url, token.method.name, token.name
    ))
}
