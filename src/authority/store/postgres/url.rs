//! Where a database is, as libpq's URLs say it (PostgreSQL's documentation, section 34.1.1.2): read into
//! parameters, every one of which is known and has a value that it can have.
//!
//! No message repeats more of a URL than a parameter's name: a password that is not percent-encoded ends up anywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::text::{percent_decoded, shown, which_of};

/// What a URL begins with.
pub const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// What a parameter may be.
enum Values {
    Text,
    Number(RangeInclusive<u32>),
    OneOf(&'static [&'static str]),
    /// libpq has it, and this program does not, for that reason.
    Not(&'static str),
}

use Values::{Not, Number, OneOf, Text};

/// Every parameter, the variable of libpq's that stands for it, and its values.
const PARAMETERS: &[(&str, &str, Values)] = &[
    ("host", "PGHOST", Text),
    ("hostaddr", "PGHOSTADDR", Text),
    ("port", "PGPORT", Text),
    ("user", "PGUSER", Text),
    ("password", "PGPASSWORD", Text),
    ("passfile", "PGPASSFILE", Text),
    ("dbname", "PGDATABASE", Text),
    ("application_name", "PGAPPNAME", Text),
    ("sslmode", "PGSSLMODE", OneOf(&["verify-full", "verify-ca", "require", "prefer", "allow", "disable"])),
    ("sslrootcert", "PGSSLROOTCERT", Text),
    ("sslcert", "PGSSLCERT", Text),
    ("sslkey", "PGSSLKEY", Text),
    ("sslnegotiation", "PGSSLNEGOTIATION", OneOf(&["postgres", "direct"])),
    ("channel_binding", "PGCHANNELBINDING", OneOf(&["prefer", "require", "disable"])),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Number(1..=10)),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", OneOf(&["read-write", "primary", "any"])),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", OneOf(&["disable", "random"])),
    ("keepalives", "", OneOf(&["1", "0"])),
    ("keepalives_idle", "", Number(1..=7200)),
    ("keepalives_interval", "", Number(1..=7200)),
    ("keepalives_count", "", Number(1..=100)),
    ("tcp_user_timeout", "", Number(0..=7_200_000)),
    ("service", "PGSERVICE", Not("write what the service file says into the URL")),
    ("servicefile", "PGSERVICEFILE", Not("write what the service file says into the URL")),
    (
        "options",
        "PGOPTIONS",
        Not("give the role its settings with ALTER ROLE … SET; PgBouncer knows no options"),
    ),
    ("sslpassword", "", Not("keep the key unencrypted in a file that is the authority's alone")),
    ("sslcrl", "PGSSLCRL", Not("use certificates that end soon")),
    ("sslcrldir", "PGSSLCRLDIR", Not("use certificates that end soon")),
    (
        "require_auth",
        "PGREQUIREAUTH",
        Not("`channel_binding=require` has the server prove that it knows the password"),
    ),
    ("requirepeer", "PGREQUIREPEER", Not("name a socket's folder that the server's user alone writes to")),
    ("gssencmode", "", Not("connections are encrypted by TLS")),
    ("replication", "", Not("it is for standbys")),
];

fn known(name: &str) -> Option<&'static (&'static str, &'static str, Values)> {
    PARAMETERS.iter().find(|(known, ..)| *known == name)
}

/// A URL's parameters. Any of them may hold a secret, so that none has a `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(BTreeMap<&'static str, Secret>);

impl DatabaseUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Kind::Usage` for one that is malformed, and for parameters that are unknown or cannot be what they are.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(rest) = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
            return Err(wrong("does not begin with `postgres://`"));
        };
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) if !user.contains('/') => (user, rest),
            _ => ("", rest),
        };
        if rest.contains('@') {
            return Err(wrong("has an `@` too many").hint(
                "in names, passwords and values `@` is written `%40`, `/` `%2F`, `:` `%3A` and `%` `%25`",
            ));
        }
        let mut url = Self(BTreeMap::new());
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
        for (parameter, value) in [("user", name), ("password", password), ("dbname", database)] {
            if !value.is_empty() {
                url.add(parameter, decode(value)?)?;
            }
        }
        url.add_hosts(hosts)?;
        let mut had_password = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| wrong("has a parameter that is not NAME=VALUE"))?;
            let name = decode(name)?;
            // What stands behind a password may be the rest of it.
            if had_password && known(&name).is_none() {
                return Err(wrong("has an unknown parameter behind `password`")
                    .hint("in values `&` is written `%26`, and `=` `%3D`"));
            }
            had_password |= name == "password";
            url.add(&name, decode(value)?)?;
        }
        Ok(url)
    }

    /// `HOST:PORT,…`, in which an address of IPv6 stands in brackets, and each part may be left out.
    fn add_hosts(&mut self, text: &str) -> Result<()> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for one in text.split(',') {
            let (host, port) = if let Some(rest) = one.strip_prefix('[') {
                let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("has a `[` without its `]`"))?;
                let port = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
                (host, port.ok_or_else(|| wrong("has something else than a port behind a `]`"))?)
            } else {
                one.split_once(':').unwrap_or((one, ""))
            };
            hosts.push(decode(host)?);
            ports.push(port.to_owned());
        }
        for (parameter, all) in [("host", hosts), ("port", ports)] {
            if all.iter().any(|one| !one.is_empty()) {
                self.add(parameter, all.join(","))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: String) -> Result<()> {
        let Some((name, _, values)) = known(name) else {
            let names: Vec<&str> = PARAMETERS.iter().map(|(name, ..)| *name).collect();
            return Err(
                wrong(&format!("has the unknown parameter `{}`", shown(name))).hint(which_of(name, &names))
            );
        };
        check(&format!("the database's URL: `{name}`"), values, &value)?;
        match self.0.insert(name, Secret::new(value)) {
            Some(_) => Err(wrong(&format!("has `{name}` twice"))),
            None => Ok(()),
        }
    }

    /// What libpq's variables say, where the URL says nothing.
    pub fn filled(mut self, env: &Environment) -> Result<Self> {
        for (name, variable, values) in PARAMETERS {
            let Some(value) = env.get(variable).filter(|_| !self.0.contains_key(name)) else { continue };
            check(variable, values, value)?;
            self.0.insert(name, Secret::new(value.to_owned()));
        }
        Ok(self)
    }

    /// A parameter's value. A password must not be shown.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }

    /// A number's.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.value(name).and_then(|value| value.parse().ok())
    }

    /// What an operator should hear of it: a file that holds a password is copied and shown for other reasons.
    pub fn warning(&self) -> Option<(&'static str, &'static str)> {
        self.0.contains_key("password").then_some((
            "`store` in authority.yaml holds the database's password",
            "put it into a password file, which `passfile=` of the URL names: HOST:PORT:DATABASE:USER:PASSWORD, mode 600",
        ))
    }
}

/// Without a value, since any may be a secret.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A URL that was read, without whose it is and what they prove it by: where the database is, for whoever serves from it.
pub fn without_role(text: &str) -> String {
    const OF_A_ROLE: [&str; 5] = ["user", "password", "passfile", "sslcert", "sslkey"];
    let rest = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or_default();
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_kept = |pair: &&str| {
        let name = pair.split_once('=').and_then(|(name, _)| decode(name).ok());
        name.is_some_and(|name| !OF_A_ROLE.contains(&name.as_str()))
    };
    let query = query.split('&').filter(is_kept).collect::<Vec<_>>().join("&");
    format!("{}{place}{}{query}", SCHEMES[0], if query.is_empty() { "" } else { "?" })
}

fn wrong(why: &str) -> Error {
    Error::usage(format!("the database's URL {why}"))
}

fn check(what: &str, values: &Values, value: &str) -> Result<()> {
    let cannot = |why: &str| Err(Error::usage(format!("{what} {why}")));
    match values {
        Not(instead) => Err(Error::usage(format!("{what} is not supported")).hint(*instead)),
        _ if value.is_empty() => cannot("has no value"),
        _ if value.contains('\0') => cannot("holds a NUL"),
        Text => Ok(()),
        Number(range) => match value.parse::<u32>() {
            Ok(number) if range.contains(&number) => Ok(()),
            _ => cannot(&format!("must be a number from {} to {}", range.start(), range.end())),
        },
        OneOf(known) if known.contains(&value) => Ok(()),
        OneOf(known) => cannot(&format!("must be one of: {}", known.join(", "))),
    }
}

/// Percent-encoding (RFC 3986, section 2.1), taken off.
fn decode(text: &str) -> Result<String> {
    percent_decoded(text).map_err(|why| wrong(why).hint("`%` itself is written `%25`"))
}
