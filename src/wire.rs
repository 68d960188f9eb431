//! The bodies of the HTTP API, shared by both sides; `docs/protocol.md` repeats them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::secret::Secret;

/// The shortest life of a certificate that can be asked for, in seconds.
pub const MIN_TTL: u32 = 10;
/// The longest that a role can give one, in seconds: beyond it nothing is short-lived.
pub const MAX_TTL: u32 = 7 * 24 * 3600;
/// How long they live where nobody asks for anything else, in seconds.
pub const USUAL_TTL: u32 = 3600;

/// The largest revocation list that servers fetch, in bytes; it grows by tens of bytes a revocation.
pub const MAX_LIST: usize = 64 << 20;

/// The longest token that an authority reads, in bytes. GitHub's are about 2 KB.
pub const MAX_TOKEN: usize = 16 << 10;

/// `POST /v1/exchange`: what a job asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeRequest {
    /// The join token whose rules apply.
    pub token: String,
    /// The join method of that token, as a cross-check.
    pub join_method: String,
    /// What the job presents; which fields depends on the method (`id_token` for OIDC).
    pub proof: Proof,
    /// How long the certificates should live, in seconds; signed, so that a
    /// negative one is an answerable mistake.
    pub ttl_seconds: i64,
    /// What is asked for: at least one, or a leaf.
    pub outputs: Vec<OutputRequest>,
    /// The leaf clusters that the job is to be vouched for at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<LeafRequest>,
}

/// A leaf cluster that a job goes to with what it gets here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafRequest {
    /// Its name, as the policy here has it.
    pub name: String,
    /// The [`binding`] of the request that the job will make there.
    pub binding: String,
    /// The roles that it is to be vouched for with there; none means every role that goes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// What a job presents to prove who it is, by field; every value is secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(pub BTreeMap<String, Secret>);

/// The field of a proof that is one OIDC token.
pub const ID_TOKEN: &str = "id_token";

impl Proof {
    /// A proof that is one OIDC token.
    pub fn id_token(token: Secret) -> Self {
        Self(BTreeMap::from([(ID_TOKEN.to_owned(), token)]))
    }

    /// A field, where there is one.
    pub fn field(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

/// One output of an [`ExchangeRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRequest {
    /// The output's name, unique in the request: `[a-z0-9][a-z0-9_.-]*`, at most 64 bytes.
    pub name: String,
    /// The output's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The roles it asks for; none means every role of the bot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The type's own options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The SSH key to certify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshRequest>,
    /// The TLS key to certify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRequest>,
}

/// An SSH key to certify.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshRequest {
    /// One line of OpenSSH: `ssh-ed25519 AAAA…`.
    pub public_key: String,
}

/// A TLS key to certify.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsRequest {
    /// A certificate signing request in PEM (RFC 2986); only its public key is taken.
    pub csr: String,
}

/// The answer to an [`ExchangeRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExchangeResponse {
    /// Names the issuance in the audit trail and for `POST /v1/revoke`.
    pub issuance_id: String,
    /// The authority's cluster.
    pub cluster: String,
    /// The bot that the job is now.
    pub bot: String,
    /// When the first of the certificates expires (RFC 3339).
    pub expires_at: String,
    /// One for each output asked for, in the same order.
    pub outputs: Vec<OutputResponse>,
    /// Whom to trust.
    pub trust: TrustAnchors,
    /// What the job should know: a role that was left out, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The host certificates that are revoked, as a KRL of OpenSSH in base64; where a user's SSH certificate is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_hosts: Option<String>,
    /// One for each leaf asked for, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<LeafAnswer>,
    /// Which registered worker joined, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<JoinedInstance>,
}

/// Where a leaf cluster is, and what a job shows there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeafAnswer {
    /// Its name.
    pub name: String,
    /// Its `public_url`.
    pub url: String,
    /// The pins of its TLS CAs, as `--ca-pin` takes them; none where the system's trust store is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pin: Option<String>,
    /// The names of hosts that are the leaf's: `NAME` or `*.DOMAIN`.
    pub hosts: Vec<String>,
    /// The proof for it, good once and for minutes: a JWT of type [`PASSPORT`].
    pub proof: Secret,
}

/// The join method of jobs that another authority vouches for; the join token is that one's cluster.
pub const TRUSTED_CLUSTER: &str = "trusted_cluster";

/// `typ` of what a leaf cluster takes for a proof.
pub const PASSPORT: &str = "machine-id-passport+jwt";

/// A registered worker that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedInstance {
    /// Its id.
    pub id: String,
    /// The generation that its next join must present.
    pub generation: i64,
}

/// One output of an [`ExchangeResponse`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputResponse {
    /// The name it was asked for under.
    pub name: String,
    /// The SSH certificate on one line, where an SSH key was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_certificate: Option<String>,
    /// The X.509 certificate, leaf first, in PEM, where a CSR was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_certificate_chain: Option<String>,
    /// The token, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Secret>,
    /// The serial of the SSH certificate, or of the X.509 one where there is only that, or of the token; decimal.
    pub serial: String,
    /// The serial of the X.509 certificate where there are both; decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_serial: Option<String>,
    /// The SSH certificate's principals, or the X.509 one's common name where there is only that.
    #[serde(default)]
    pub principals: Vec<String>,
    /// The roles that went into it.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// `GET /v1/trust`: the authority's CAs. More than one of a kind while one is rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchors {
    /// CAs of host certificates, one OpenSSH public key each.
    pub ssh_host_cas: Vec<String>,
    /// CAs of user certificates, one OpenSSH public key each.
    pub ssh_user_cas: Vec<String>,
    /// CAs of X.509 certificates, one PEM each.
    pub tls_cas: Vec<String>,
}

/// `POST /v1/revoke`: a job gives its certificates back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The issuance, every certificate of which is revoked.
    pub issuance_id: String,
    /// A JWS by a key of that issuance (see `docs/protocol.md`).
    pub assertion: Secret,
}

/// `GET /v1/revoked`: when the certificates of the revocation lists end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevokedEnds {
    /// By serial, in seconds since 1970.
    pub expires: BTreeMap<u64, i64>,
}

/// What the authority states of itself to servers: the claims of a JWS of type [`STATEMENT`], signed by its statement key with
/// EdDSA, ES256 or ES384. Later ones count: a higher `number`, or the same and a later `made`. Unknown members are of later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The cluster that it is of.
    pub cluster: String,
    /// The number of the revocation lists that it is about.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// Until when it is believed.
    pub until: i64,
    /// The CAs that are trusted.
    pub trust: TrustAnchors,
    /// For each CA that takes another's place: who says so.
    #[serde(default)]
    pub endorsements: Vec<Endorsement>,
    /// The statement keys that are believed, in base64url: the raw public key of Ed25519 (32 bytes), or the point of P-256 or
    /// P-384 (65 or 97 bytes).
    pub statement_keys: Vec<String>,
    /// The SHA-256 of the KRL with that number, as it is served, in hexadecimal.
    pub krl: String,
    /// The same of the CRL, but for its signature, which is another of each authority: of its `TBSCertList` (RFC 5280,
    /// section 5.1). Of the TLS CA that signs now.
    pub crl: String,
    /// The same of the lists of the other TLS CAs that are trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<CrlHash>,
    /// CAs that are believed no more, whatever else says so: the SSH ones whose key is in the KRL, as OpenSSH public keys, and
    /// TLS ones in PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked_cas: Vec<String>,
    /// The number of the statement that `revoked` follows; none where whole lists are to be fetched.
    #[serde(default)]
    pub since: Option<u64>,
    /// What is revoked in this one and was not in that.
    #[serde(default)]
    pub revoked: Vec<RevokedNow>,
    /// The lowest number that has all that operators have revoked: who has a lower one is not to wait.
    #[serde(default)]
    pub urgent: u64,
}

/// The list of a TLS CA that is trusted and does not sign now: `GET /v1/revoked/tls.crl?ca=HEX`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlHash {
    /// The SHA-256 of the CA's SubjectPublicKeyInfo, in hexadecimal.
    pub ca: String,
    /// That of its list, as [`Statement::crl`] has it.
    pub hash: String,
}

/// `typ` of a [`Statement`].
pub const STATEMENT: &str = "machine-id-statement+jwt";

/// A certificate that is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedNow {
    /// Its serial.
    #[serde(with = "text_number")]
    pub serial: u64,
    /// Whether it is one of SSH; else it is X.509.
    pub ssh: bool,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// That a CA is trusted in another's place, or a statement key: said by one that is trusted already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// `ssh-user`, `ssh-host`, `tls` or `statement`.
    pub kind: String,
    /// The new one, as [`TrustAnchors`] or [`Statement::statement_keys`] have it.
    pub new: String,
    /// The one that says so, as [`TrustAnchors`] or [`Statement::statement_keys`] have it: of the same kind, or of `tls`.
    pub by: String,
    /// Its signature, in base64url, over [`Endorsement::message`]: of Ed25519, of ECDSA in ASN.1 (P-256 with SHA-256, P-384 with
    /// SHA-384), or of RSA (PKCS #1 v1.5 with SHA-256).
    pub signature: String,
}

impl Endorsement {
    /// What is signed.
    pub fn message(cluster: &str, kind: &str, new: &str) -> String {
        format!("machine-id-endorsement-v1\n{cluster}\n{kind}\n{}\n", new.trim_end())
    }
}

/// A line of `GET /v1/watch?since=NUMBER`: a [`Statement`] as a JWS. The first comes at once, whatever is new at once, and else
/// one each [`HEARTBEAT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// The JWS.
    pub statement: String,
}

/// How often a watcher hears something, in seconds: balancers end connections that are silent for a minute.
pub const HEARTBEAT: u64 = 15;

/// How long a statement is believed, in seconds.
pub const STATEMENT_VALID: i64 = 600;

/// The header in which whoever asks says which host it is: a JWS as in [`RevokeRequest::assertion`], by the host's key, with
/// its certificate; its audience is the URL that is asked for.
pub const HOST_HEADER: &str = "machine-id-host";

/// The header in which an authority names its suite (`modern` or `compatible`), and a job the one by which it made keys that
/// nobody chose.
pub const SUITE_HEADER: &str = "machine-id-suite";
/// The header in which a client says which of the authority's CAs it believes, by `--ca-pin` or `--ca-file`: the SHA-256 of each
/// SubjectPublicKeyInfo in hexadecimal, with commas. Who leaves it out says nothing.
pub const TRUSTS_HEADER: &str = "machine-id-trusts";

/// Serials exceed what numbers hold elsewhere.
mod text_number {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom("not a number in text"))
    }
}

/// What the `type` of every [`Problem`] begins with.
const PROBLEM_TYPE: &str = "urn:machine-id:";

/// An error's body: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:machine-id:` and the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The refusal's name for `authority explain` and the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
    /// The caller's own claims as the authority read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Map<String, Value>>,
    /// The authority's clock (RFC 3339), where time was what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_time: Option<String>,
    /// After how many seconds to ask again: the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of that kind, with nothing beside it.
    pub fn new(kind: &str, status: u16, title: &str) -> Self {
        let kind = format!("{PROBLEM_TYPE}{kind}");
        Self { kind, title: title.to_owned(), status, ..Self::default() }
    }

    /// Whether an authority says it, and nobody on the way.
    pub fn is_ours(&self) -> bool {
        self.kind.starts_with(PROBLEM_TYPE)
    }

    /// Whether it is of that kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.strip_prefix(PROBLEM_TYPE) == Some(kind)
    }
}

/// SHA-256 of public keys of one output, for [`binding`].
#[derive(Clone, Debug)]
pub struct BoundKeys<'a> {
    /// The output's name.
    pub name: &'a str,
    /// The SSH public key blob (RFC 4253, section 6.6).
    pub ssh_blob: Option<&'a [u8]>,
    /// The CSR's SubjectPublicKeyInfo in DER (RFC 5280, section 4.1).
    pub tls_spki: Option<&'a [u8]>,
    /// The audience of a token, and its `ttl` in seconds where one is asked for.
    pub jwt: Option<(&'a str, Option<u64>)>,
}

/// The key binding: a hash over all public keys of a request, in its order,
/// and the leaf clusters that it is to be vouched for at, that a token carries
/// in its audience behind a `#`. Base64url without padding of the SHA-256 of
/// the lines that `docs/protocol.md` shows.
pub fn binding(outputs: &[BoundKeys<'_>], leaves: &[LeafRequest]) -> String {
    let hash = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes));
    let mut lines = String::from("machine-id-binding-v1\n");
    for output in outputs {
        for (kind, key) in [("ssh", output.ssh_blob), ("tls", output.tls_spki)] {
            if let Some(key) = key {
                lines.push_str(&format!("{} {kind} {}\n", output.name, hash(key)));
            }
        }
        if let Some((audience, ttl)) = output.jwt {
            let ttl = ttl.map_or_else(String::new, |ttl| ttl.to_string());
            lines.push_str(&format!(
                "{} jwt {}\n",
                output.name,
                hash(format!("{audience}\n{ttl}").as_bytes())
            ));
        }
    }
    for leaf in leaves {
        lines.push_str(&format!("{} leaf {}\n", leaf.name, leaf.binding));
    }
    hash(lines.as_bytes())
}

/// The audience of a token bound to keys: `PUBLIC_URL#BINDING`.
pub fn bound_audience(public_url: &str, binding: &str) -> String {
    format!("{public_url}#{binding}")
}

/// An output's or a role's name that can stand in a path, a binding line and a log.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_is_the_documented_hash() {
        let outputs = [
            BoundKeys { name: "identity", ssh_blob: Some(b"ssh blob"), tls_spki: Some(b"spki"), jwt: None },
            BoundKeys { name: "orders", ssh_blob: None, tls_spki: Some(b"other"), jwt: None },
        ];
        // Also computed with `printf | openssl dgst -sha256 -binary | basenc --base64url`.
        let here = "EVHp6ZU5JV8jhlkXhbLH0c2_vdUeIKNSiqbomONkKSI";
        assert_eq!(binding(&outputs, &[]), here);
        let leaf = LeafRequest {
            name: "leaf.example.com".to_owned(),
            binding: here.to_owned(),
            roles: vec!["deploy".to_owned()],
        };
        assert_eq!(binding(&[], &[leaf]), "Rm8vZ1jHa75cemvZXKTFkKo4T7wocs7E75vM9QOHhxc");
    }

    #[test]
    fn names_stay_names() {
        for good in ["identity", "orders-db", "a.b_c", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-x", ".", "..", "a/b", "A", "a b", "a\n", "é", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
