//! Why the database was not reached: what, where, and what to do about it. What fails later is in `failure`.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::settings::{Settings, Target};
use super::tls::Trusted;
use crate::error::{Error, Kind};
use crate::net::Untrusted;
use crate::secret::Secret;
use crate::text::{shown, shown_unless_secret};

/// Why a connection failed; can be told to all who waited for it.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// `Unreachable` where time may help, `Usage` where somebody must change something.
    pub(super) kind: Kind,
    message: String,
    hints: Vec<String>,
}

impl Trouble {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unreachable, message: message.into(), hints: Vec::new() }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What somebody must set right.
    fn settled(self) -> Self {
        Self { kind: Kind::Usage, ..self }
    }

    /// The same, of this server.
    pub(super) fn at(self, target: &Target) -> Self {
        Self { message: format!("{}: {}", shown(&target.to_string()), self.message), ..self }
    }

    /// That of several servers as one.
    pub(super) fn of_all(mut all: Vec<Self>) -> Self {
        all.dedup_by(|one, other| one.message == other.message);
        let may_pass = all.iter().any(|one| one.kind != Kind::Usage);
        let mut hints: Vec<String> = Vec::new();
        for hint in all.iter().flat_map(|one| &one.hints) {
            if !hints.contains(hint) {
                hints.push(hint.clone());
            }
        }
        let messages: Vec<&str> = all.iter().map(|one| one.message.as_str()).collect();
        Self {
            kind: if may_pass { Kind::Unreachable } else { Kind::Usage },
            message: messages.join("; "),
            hints,
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let error = Self::new(trouble.kind, trouble.message).context("the database");
        trouble.hints.into_iter().fold(error, Self::hint)
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.to_string(), hints: error.hints().to_vec() }
    }
}

/// A connection that was tried.
pub(super) struct Attempt<'a> {
    pub(super) settings: &'a Settings,
    pub(super) target: &'a Target,
    pub(super) password: Option<&'a Secret>,
    /// Whether the server agreed to speak TLS.
    pub(super) has_tls: bool,
}

impl Attempt<'_> {
    /// Why it failed.
    pub(super) fn trouble(&self, error: &tokio_postgres::Error) -> Trouble {
        if let Some(answer) = error.as_db_error() {
            return self.refused(answer.code(), &self.quoted(answer.message()));
        }
        let needs_tls = !self.target.is_socket()
            && !matches!(self.settings.tls.trusted, Trusted::Nobody | Trusted::AnyoneOrPlain);
        match cause(error) {
            Cause::Certificate(why) => self.untrusted(why),
            Cause::Io(error) => self.no_connection(error),
            Cause::Other(_) if needs_tls && !self.has_tls => {
                Trouble::new("it speaks no TLS").hint("give the server a certificate (`ssl = on`)").hint(
                    "where nobody else is on the network between, `sslmode=disable` says so",
                )
            }
            Cause::Other(_) if self.password.is_none() => {
                Trouble::new(format!("it asks for the password of `{}`, and there is none", shown(&self.settings.user)))
                    .hint(match self.settings.password_from() {
                        Some(from) => format!("{from} has no line for it: HOST:PORT:DATABASE:USER:PASSWORD"),
                        None => "name it in a file, mode 600, with a line HOST:PORT:DATABASE:USER:PASSWORD: `passfile=FILE` in the URL".to_owned(),
                    })
                    .settled()
            }
            Cause::Other(why) => Trouble::new(self.quoted(&why)),
        }
    }

    /// Words of the server's.
    fn quoted(&self, words: &str) -> String {
        let secret = self.password.map(Secret::expose).unwrap_or_default();
        shown_unless_secret(words, &[secret])
    }

    fn refused(&self, code: &SqlState, words: &str) -> Trouble {
        let (user, database) = (shown(&self.settings.user), shown(&self.settings.database));
        let said = Trouble::new(words);
        match *code {
            SqlState::INVALID_PASSWORD => Trouble::new(format!("it refuses the password of `{user}`"))
                .hint(match self.settings.password_from() {
                    Some(from) => format!("the password is from {}", shown(&from)),
                    None => "there is none".to_owned(),
                })
                .settled(),
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => said
                .hint(format!(
                    "pg_hba.conf of the server must let `{user}` in from here, and the role must be there"
                ))
                .settled(),
            SqlState::INVALID_CATALOG_NAME => said
                .hint(format!("create it: CREATE DATABASE \"{database}\"; or name another in the URL"))
                .settled(),
            SqlState::INSUFFICIENT_PRIVILEGE => {
                said.hint(format!("GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\"")).settled()
            }
            SqlState::TOO_MANY_CONNECTIONS => {
                said.hint("raise `max_connections` of the server, or put PgBouncer in front of it")
            }
            SqlState::UNDEFINED_FILE => said.hint(self.reset("local_preload_libraries")),
            _ => said,
        }
    }

    /// What a role can have set for itself, whoever has its password.
    fn reset(&self, setting: &str) -> String {
        let (user, database) = (shown(&self.settings.user), shown(&self.settings.database));
        format!(
            "where `{setting}` was set for the role, an administrator takes that back: ALTER ROLE \"{user}\" RESET ALL; \
             ALTER ROLE \"{user}\" IN DATABASE \"{database}\" RESET ALL"
        )
    }

    fn untrusted(&self, why: &CertificateError) -> Trouble {
        let why = Untrusted::from(why);
        let roots = match &self.settings.tls.roots {
            Some(path) => path.display().to_string(),
            None => "the system's trust store".to_owned(),
        };
        let trouble = Trouble::new(format!("its certificate is not trusted: {why}"));
        match why {
            Untrusted::OtherName => trouble
                .hint("the URL must name the server as its certificate does (subjectAltName); `hostaddr=` can say where it is"),
            Untrusted::UnknownIssuer => trouble
                .hint(format!("looked for its CA in {}; the URL names another with sslrootcert=FILE", shown(&roots))),
            _ => trouble,
        }
    }

    fn no_connection(&self, error: &io::Error) -> Trouble {
        let trouble = Trouble::new(shown(&error.to_string()));
        match error.kind() {
            // That is how the library says it; the system's errors have a number.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
                Trouble::new("it takes no writes: it is a standby, or is set to read only")
                    .hint("name every server in the URL, `HOST,HOST`: the one that takes writes is found")
                    .hint(self.reset("default_transaction_read_only"))
            }
            io::ErrorKind::NotFound if self.target.is_socket() => Trouble::new("there is no socket")
                .hint("a server that is elsewhere is named in the URL: postgres://USER@HOST/DATABASE"),
            io::ErrorKind::PermissionDenied if self.target.is_socket() => {
                trouble.hint("the authority's user must be in the group of the socket's folder")
            }
            io::ErrorKind::ConnectionRefused => {
                trouble.hint("is it running, and does it listen there (`listen_addresses`, `port`)?")
            }
            _ if self.settings.tls.is_direct => trouble.hint("`sslnegotiation=direct` needs PostgreSQL 17"),
            io::ErrorKind::UnexpectedEof if self.has_tls => trouble
                .hint("the server ended TLS: does it ask for a client's certificate (sslcert=, sslkey=)?"),
            _ => trouble,
        }
    }
}

enum Cause<'e> {
    Certificate(&'e CertificateError),
    Io(&'e io::Error),
    Other(String),
}

/// What an error began with.
fn cause(error: &tokio_postgres::Error) -> Cause<'_> {
    let mut found = Cause::Other(error.to_string());
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(current) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = current.downcast_ref() {
            return Cause::Certificate(why);
        }
        let io = current.downcast_ref::<io::Error>();
        found = match (io, found) {
            (Some(error), _) => Cause::Io(error),
            (None, Cause::Other(_)) => Cause::Other(current.to_string()),
            (None, found) => found,
        };
        // An `io::Error` hides what it wraps from `source`.
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    found
}
