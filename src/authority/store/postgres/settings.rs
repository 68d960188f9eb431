//! How the database is reached: its URL, and what libpq's variables say where that says nothing.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use super::passfile;
use super::tls::{Tls, Trusted};
use super::url::DatabaseUrl;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::folder::trust::Owner;
use crate::secret::Secret;

/// Where Debian's and most others' PostgreSQL has its socket. Not `/tmp`, where anybody could have one.
const SOCKETS: &str = "/run/postgresql";
const PORT: u16 = 5432;
/// How long one address may take until it has let us in: several of them fit into a request's 15 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// When a silent connection is asked whether it is still there, how often, and after how many silences it is not.
const KEEPALIVE: (u32, u32, u32) = (5, 2, 3);
/// For how long what was sent may go unacknowledged, in milliseconds.
const USER_TIMEOUT: u32 = 10_000;

/// How the database is reached. `Display` is where that is, and no secret.
#[derive(Clone)]
pub struct Settings {
    pub(super) targets: Vec<Target>,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) connect_timeout: Duration,
    /// Whether the hosts are tried in any order.
    pub(super) is_any_order: bool,
    pub(super) tls: Tls,
    password: Password,
    owner: Owner,
    /// Everything but whom to ask and the password.
    config: Config,
}

/// One server that may be the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its name, or the folder of its socket.
    pub(super) host: String,
    /// Its address, where the name is for its certificate alone.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// Where the password is, if there is one.
#[derive(Clone)]
enum Password {
    Given(&'static str, Secret),
    /// Read for each connection, so that it can be changed.
    File(PathBuf),
    None,
}

impl Settings {
    /// From a URL of a data directory's, below which the files that it names are. They are read, too.
    ///
    /// # Errors
    /// `Kind::Usage` for what cannot be meant, and for files that cannot be used.
    pub fn parse(url: &str, env: &Environment, data_dir: &Path, owner: Owner) -> Result<Self> {
        Self::new(&DatabaseUrl::parse(url)?, env, data_dir, owner)
    }

    /// The same of one that was read before.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn new(url: &DatabaseUrl, env: &Environment, data_dir: &Path, owner: Owner) -> Result<Self> {
        let all = url.clone().filled(env)?;
        let file = |name| all.value(name).map(|path| data_dir.join(path));
        let user = all.value("user").map(str::to_owned).map_or_else(system_user, Ok)?;
        let database = all.value("dbname").unwrap_or(&user).to_owned();
        let settings = Self {
            targets: targets(&all)?,
            connect_timeout: all
                .number("connect_timeout")
                .map_or(CONNECT_TIMEOUT, |seconds| Duration::from_secs(seconds.into())),
            is_any_order: all.value("load_balance_hosts") == Some("random"),
            tls: Tls::new(
                all.value("sslmode"),
                file("sslrootcert"),
                (file("sslcert"), file("sslkey")),
                all.value("sslnegotiation") == Some("direct"),
            )?,
            password: match (url.value("password"), all.value("password")) {
                (Some(password), _) => Password::Given("the URL", Secret::new(password.to_owned())),
                (None, Some(password)) => Password::Given("PGPASSWORD", Secret::new(password.to_owned())),
                // One that is named must be there.
                _ => file("passfile").map_or_else(|| usual_passfile(env), Password::File),
            },
            owner,
            config: config(&all, &user, &database),
            user,
            database,
        };
        for target in &settings.targets {
            settings.password(target)?;
        }
        if settings.targets.iter().any(|target| !target.is_socket()) {
            settings.tls.connector(owner)?;
        }
        Ok(settings)
    }

    /// What an operator should hear of them, and what to do about it.
    pub fn warnings(&self) -> Vec<(String, &'static str)> {
        let is_remote = self.targets.iter().any(|target| !target.is_socket());
        self.tls.warning().filter(|_| is_remote).into_iter().collect()
    }

    /// Where the password is from, for whoever must look there.
    pub(super) fn password_from(&self) -> Option<String> {
        match &self.password {
            Password::Given(from, _) => Some((*from).to_owned()),
            Password::File(path) => Some(path.display().to_string()),
            Password::None => None,
        }
    }

    /// The password for a server.
    pub(super) fn password(&self, target: &Target) -> Result<Option<Secret>> {
        match &self.password {
            Password::Given(_, password) => Ok(Some(password.clone())),
            Password::None => Ok(None),
            Password::File(path) => {
                let host = if target.host == SOCKETS { "localhost" } else { &target.host };
                let fields = [host, &target.port.to_string(), &self.database, &self.user];
                passfile::password(path, self.owner, &fields)
            }
        }
    }

    /// Whose the authority is.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// How to ask one server at one address.
    pub(super) fn config(
        &self,
        target: &Target,
        address: Option<IpAddr>,
        password: Option<&Secret>,
    ) -> Config {
        let mut config = self.config.clone();
        config.host(&target.host).port(target.port);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let is_plain = target.is_socket() || self.tls.trusted == Trusted::Nobody;
        config.ssl_mode(match &self.tls.trusted {
            _ if is_plain => SslMode::Disable,
            Trusted::AnyoneOrPlain => SslMode::Prefer,
            _ => SslMode::Require,
        });
        if is_plain {
            config.ssl_negotiation(SslNegotiation::Postgres);
        }
        if let Some(password) = password {
            config.password(password.expose());
        }
        config
    }
}

/// `postgres://USER@HOST:PORT,…/DATABASE`.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        write!(f, "postgres://{}@{}/{}", self.user, targets.join(","), self.database)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Target {
    /// Whether it is a socket of this machine's.
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Hosts, addresses and ports are lists of the same length; one port may be for all.
fn targets(all: &DatabaseUrl) -> Result<Vec<Target>> {
    let list = |name| all.value(name).map(|text| text.split(',').collect::<Vec<_>>()).unwrap_or_default();
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    let fits = |list: &[&str], one: bool| list.is_empty() || list.len() == count || one && list.len() == 1;
    if !fits(&hosts, false) || !fits(&addresses, false) || !fits(&ports, true) {
        return Err(Error::usage("the database's hosts, addresses and ports are not as many as one another")
            .hint("HOST:PORT,HOST:PORT; with `port=`, one for all, or one for each"));
    }
    let target = |at: usize| {
        let written = |list: &[&'_ str]| {
            let only = list.first().filter(|_| list.len() == 1);
            list.get(at).or(only).filter(|text| !text.is_empty()).map(|text| (*text).to_owned())
        };
        let address = written(&addresses).map(|text| text.parse::<IpAddr>()).transpose();
        let address = address.map_err(|_| Error::usage("`hostaddr` of the database is no IP address"))?;
        let port = written(&ports).map_or(Ok(PORT), |text| text.parse::<u16>());
        let port = port.ok().filter(|port| *port > 0).ok_or_else(|| {
            Error::usage("a port of the database is no number from 1 to 65535").hint(
                "an address of IPv6 stands in brackets; in a password `/` is written `%2F` and `:` `%3A`",
            )
        })?;
        let host = written(&hosts).or_else(|| address.map(|address| address.to_string()));
        let host = host.unwrap_or_else(|| SOCKETS.to_owned());
        if host.starts_with('@') {
            return Err(
                Error::usage("a socket without a path (`@`) is not supported").hint("name its folder")
            );
        }
        Ok(Target { host, address, port })
    };
    (0..count).map(target).collect()
}

/// What is asked of every server in the same way.
fn config(all: &DatabaseUrl, user: &str, database: &str) -> Config {
    let seconds = |name, usual: u32| Duration::from_secs(all.number(name).unwrap_or(usual).into());
    let mut config = Config::new();
    config
        .user(user)
        .dbname(database)
        .application_name(all.value("application_name").unwrap_or("machine-id"))
        .keepalives(all.value("keepalives") != Some("0"))
        .keepalives_idle(seconds("keepalives_idle", KEEPALIVE.0))
        .keepalives_interval(seconds("keepalives_interval", KEEPALIVE.1))
        .keepalives_retries(all.number("keepalives_count").unwrap_or(KEEPALIVE.2))
        // The others are only there to take over.
        .target_session_attrs(match all.value("target_session_attrs") {
            Some("any") => TargetSessionAttrs::Any,
            _ => TargetSessionAttrs::ReadWrite,
        })
        .channel_binding(match all.value("channel_binding") {
            Some("require") => ChannelBinding::Require,
            Some("disable") => ChannelBinding::Disable,
            _ => ChannelBinding::Prefer,
        })
        .ssl_negotiation(match all.value("sslnegotiation") {
            Some("direct") => SslNegotiation::Direct,
            _ => SslNegotiation::Postgres,
        });
    match all.number("tcp_user_timeout").unwrap_or(USER_TIMEOUT) {
        0 => {}
        timeout => drop(config.tcp_user_timeout(Duration::from_millis(timeout.into()))),
    }
    config
}

/// `~/.pgpass`, where it is there.
fn usual_passfile(env: &Environment) -> Password {
    let path = env.get("HOME").map(|home| Path::new(home).join(".pgpass"));
    path.filter(|path| passfile::is_there(path)).map_or(Password::None, Password::File)
}

/// Who is meant where no user is named.
fn system_user() -> Result<String> {
    whoami::username().map_err(|error| {
        Error::usage(format!("nothing says which user of the database to be: {error}"))
            .hint("`store: postgres://USER@HOST/DATABASE`")
    })
}

#[cfg(test)]
mod tests;
