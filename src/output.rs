//! The types of output: what a job can ask for, declared once for both sides.
//! What a type's certificates become is in `destination`, what they are made
//! from is in the authority's policy.

use crate::document::parse_duration;
use crate::wire::MIN_TTL;

/// Every type of output. A new one is a static below, a line here, and a file
/// and a line on each side.
pub static TYPES: &[&OutputType] = &[&IDENTITY, &SSH, &APPLICATION, &DATABASE, &KUBERNETES, &SSH_HOST, &JWT];

/// A type of output.
#[derive(Debug)]
pub struct OutputType {
    /// Its name: `--output NAME`, `"type": "NAME"`.
    pub name: &'static str,
    /// What it is for, for help and the documentation.
    pub summary: &'static str,
    /// Which keys are certified for it.
    pub keys: KeyKinds,
    /// The options that it takes beside `name`, `at`, `roles` and `destination`.
    pub options: &'static [OutputOption],
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyKinds {
    /// An SSH user's.
    pub ssh: bool,
    /// A TLS client's.
    pub tls: bool,
    /// An SSH host's.
    pub host: bool,
}

/// An option of a type of output.
#[derive(Clone, Copy, Debug)]
pub struct OutputOption {
    /// Its name.
    pub name: &'static str,
    /// Whether the type cannot do without it.
    pub required: bool,
    /// Who uses it.
    pub used_by: UsedBy,
}

/// Who uses an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    /// The authority, which decides on it.
    Authority,
    /// The client alone.
    Client,
    /// The client alone, for which it names a file.
    ClientFile,
}

/// SSH and any mTLS service.
pub static IDENTITY: OutputType = OutputType {
    name: "identity",
    summary: "SSH and TLS keys and certificates, ssh_config, known_hosts, and all of it in one file",
    keys: KeyKinds { ssh: true, tls: true, host: false },
    options: &[],
};

/// SSH, Git over SSH, Ansible.
pub static SSH: OutputType = OutputType {
    name: "ssh",
    summary: "an SSH key and certificate, ssh_config and known_hosts",
    keys: KeyKinds { ssh: true, tls: false, host: false },
    options: &[],
};

/// mTLS to a named application.
pub static APPLICATION: OutputType = OutputType {
    name: "application",
    summary: "a TLS key and certificate for one application, and the CA that its server is verified with",
    keys: TLS,
    options: &[REQUIRED.named("app")],
};

/// Databases with certificate login.
pub static DATABASE: OutputType = OutputType {
    name: "database",
    summary: "a TLS key and certificate for a database user: PostgreSQL, MariaDB, Redis, MongoDB, CockroachDB",
    keys: TLS,
    options: &[
        REQUIRED.named("service"),
        ASKED.named("user"),
        ASKED.named("database"),
        LOCAL.named("format"),
        FILE.named("server-ca"),
    ],
};

/// kubectl and its kin.
pub static KUBERNETES: OutputType = OutputType {
    name: "kubernetes",
    summary: "a kubeconfig with a client certificate inside",
    keys: TLS,
    options: &[
        REQUIRED.named("cluster"),
        ASKED.named("user"),
        LOCAL.named("server"),
        FILE.named("server-ca"),
    ],
};

/// An `sshd`'s host certificate.
pub static SSH_HOST: OutputType = OutputType {
    name: "ssh-host",
    summary: "a host certificate for an sshd, and the CA of the users that it lets in",
    keys: KeyKinds { ssh: false, tls: false, host: true },
    options: &[REQUIRED.named("principals"), FILE.named("public-key")],
};

/// A token of the authority as an OIDC issuer. The key that comes with it is not certified: who holds it may give the token back.
pub static JWT: OutputType = OutputType {
    name: "jwt",
    summary: "a token for one audience, for clouds and others that believe the authority as an OIDC issuer",
    keys: TLS,
    options: &[REQUIRED.named(AUDIENCE), ASKED.named(TTL)],
};

/// The option of [`JWT`] that says whom a token is for.
pub const AUDIENCE: &str = "audience";
/// The one that says how long it lives.
pub const TTL: &str = "ttl";
/// How long a token lives where nobody says, in seconds.
pub const USUAL_JWT_TTL: u64 = 300;
/// How long it can at most: nobody who believes it asks here whether it was revoked.
pub const MAX_JWT_TTL: u64 = 3600;

/// A [`JWT`]'s `ttl`, in seconds.
///
/// # Errors
/// What is wrong with it, in words that follow the option's name.
pub fn jwt_ttl(text: &str) -> Result<u64, String> {
    match parse_duration(text)? {
        seconds if seconds < u64::from(MIN_TTL) => Err(format!("must be at least {MIN_TTL}s")),
        seconds => Ok(seconds),
    }
}

const TLS: KeyKinds = KeyKinds { ssh: false, tls: true, host: false };
const REQUIRED: OutputOption = OutputOption { name: "", required: true, used_by: UsedBy::Authority };
const ASKED: OutputOption = OutputOption { name: "", required: false, used_by: UsedBy::Authority };
const LOCAL: OutputOption = OutputOption { name: "", required: false, used_by: UsedBy::Client };
const FILE: OutputOption = OutputOption { name: "", required: false, used_by: UsedBy::ClientFile };

impl OutputOption {
    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

impl OutputType {
    /// The options that the authority decides on; the others never leave the client.
    pub fn asked(&self) -> impl Iterator<Item = &'static OutputOption> {
        self.options.iter().filter(|option| option.used_by == UsedBy::Authority)
    }

    /// The option of that name.
    pub fn option(&self, name: &str) -> Option<&'static OutputOption> {
        self.options.iter().find(|option| option.name == name)
    }

    /// Whether it carries an SSH certificate, a user's or a host's.
    pub fn has_ssh(&self) -> bool {
        self.keys.ssh || self.keys.host
    }
}

/// The type of that name.
pub fn find(name: &str) -> Option<&'static OutputType> {
    TYPES.iter().copied().find(|known| known.name == name)
}

/// Every type's name, in the order of the table.
pub fn names() -> Vec<&'static str> {
    TYPES.iter().map(|known| known.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unique_and_their_names_fit_everywhere() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TYPES.len());
        for known in TYPES {
            assert!(crate::wire::is_name(known.name) && !known.summary.is_empty());
            for (index, option) in known.options.iter().enumerate() {
                assert!(!["", "name", "at", "roles", "destination"].contains(&option.name), "{}", known.name);
                assert!(known.options.iter().skip(index + 1).all(|other| other.name != option.name));
                // Only the authority can refuse what it does not have.
                assert!(!option.required || option.used_by == UsedBy::Authority, "{}", option.name);
            }
        }
    }
}
