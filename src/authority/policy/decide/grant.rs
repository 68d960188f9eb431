//! What a job gets: the one thing that certificates are made from.
//!
//! Only [`Policy::decide`](crate::authority::policy::Policy::decide) makes a [`Grant`]; what is in
//! it can be read and not changed.

use std::collections::BTreeMap;
use std::ops::Deref;

/// All that one request is granted.
#[derive(Debug)]
pub struct Grant(pub(super) Preview);

impl Deref for Grant {
    type Target = Preview;

    fn deref(&self) -> &Preview {
        &self.0
    }
}

/// What claims would be granted, verified or not. Nothing is issued for it:
/// certificates are made from a [`Grant`] alone.
#[derive(Debug)]
pub struct Preview {
    /// The bot that the job is.
    pub bot: String,
    /// The join token that lets it in.
    pub token: String,
    /// When what its own cluster has granted it ends, in seconds since 1970, where it is another one's: nothing outlives it.
    pub until: Option<i64>,
    /// One for each output asked for, in the same order.
    pub outputs: Vec<OutputGrant>,
    /// One for each leaf cluster asked for, in the same order.
    pub leaves: Vec<LeafGrant>,
    /// What the job should know, each once: a role that was left out, say.
    pub warnings: Vec<String>,
}

impl Preview {
    /// The path of its SPIFFE id, below its cluster's name: another cluster's bot is none of this one's.
    pub fn spiffe_path(&self) -> String {
        match self.bot.split_once('@') {
            Some((bot, root)) => format!("remote/{root}/bot/{bot}"),
            None => format!("bot/{}", self.bot),
        }
    }
}

/// What one output is granted: at least one of [`OutputGrant::ssh`],
/// [`OutputGrant::tls`] and [`OutputGrant::jwt`]. Outside a [`Grant`] it is good for nothing.
#[derive(Debug)]
pub struct OutputGrant {
    /// The output's name in the request.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Those of its options that the record repeats, as they were asked for.
    pub options: BTreeMap<String, String>,
    /// The roles in it, by name; at least one.
    pub roles: Vec<String>,
    /// How long its certificates live, or its token, in seconds.
    pub ttl: u64,
    /// The SSH certificate, if it gets one.
    pub ssh: Option<SshGrant>,
    /// The X.509 certificate, if it gets one.
    pub tls: Option<TlsGrant>,
    /// The token, if it gets one; then it gets no certificate.
    pub jwt: Option<JwtGrant>,
}

/// An SSH certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct SshGrant {
    /// Whether it is a host's: signed by the host CA, its principals host names.
    pub host: bool,
    /// The principals: sorted, each once, at least one (to some, a certificate
    /// without principals is good for every login, or every host).
    pub principals: Vec<String>,
    /// The extensions, sorted as OpenSSH wants them.
    pub extensions: Vec<&'static str>,
    /// The one command that it can run, if it is bound to one.
    pub force_command: Option<String>,
    /// Whether it holds only at the address that it was asked for from.
    pub pin_source_ip: bool,
}

/// An X.509 client certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsGrant {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations, in order.
    pub organizations: Vec<String>,
}

/// A token for one audience.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtGrant {
    /// Whoever is to believe it.
    pub audience: String,
    /// How long it lives at most, in seconds.
    pub ttl: u64,
}

/// That a job is vouched for at a leaf cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct LeafGrant {
    /// The leaf's name.
    pub name: String,
    /// The binding of the request that the job makes there.
    pub binding: String,
    /// The leaf's URL.
    pub url: String,
    /// The pins of its TLS CAs.
    pub ca_pin: Option<String>,
    /// The hosts that are the leaf's.
    pub hosts: Vec<String>,
    /// The roles that go there, by name; at least one.
    pub roles: Vec<String>,
    /// For how long the job may have something there, in seconds.
    pub ttl: u64,
}
