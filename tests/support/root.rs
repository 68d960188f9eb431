//! A root of trusted clusters, as far as a leaf sees it: an issuer of passports by a key on P-256, which it publishes.

use serde_json::{Map, Value, json};

use super::issuer::Issuer;
use super::token::Token;
use super::{keys, now, random};

/// The `typ` of passports.
pub const PASSPORT: &str = "machine-id-passport+jwt";

/// Its cluster.
pub const CLUSTER: &str = "root.test";

/// The root; it ends with the value.
pub struct Root {
    /// What answers for it.
    pub issuer: Issuer,
}

impl Root {
    /// Starts it.
    pub fn start() -> Self {
        let issuer = Issuer::start();
        issuer.set_keys(vec![keys::P256.jwk()]);
        Self { issuer }
    }

    /// Its `public_url`.
    pub fn url(&self) -> String {
        self.issuer.url("")
    }

    /// The resource by which a leaf trusts it under that cluster's name; `spec` is what else there is, `key: value, …`.
    pub fn trusted(&self, cluster: &str, spec: &str) -> String {
        format!(
            "---\nkind: trusted_cluster\nversion: v2\nmetadata: {{name: {cluster}}}\nspec: {{url: '{}', {spec}}}\n",
            self.url()
        )
    }

    /// What it says of a job of the bot `deployer` with the roles `deploy` and `read`, for this audience.
    pub fn claims(&self, cluster: &str, audience: &str) -> Map<String, Value> {
        let (now, jti) = (now(), u64::from_be_bytes(random()) >> 1);
        let claims = json!({
            "iss": self.url(), "sub": format!("spiffe://{cluster}/bot/deployer"), "aud": audience,
            "iat": now - 60, "nbf": now - 60, "exp": now + 240, "jti": jti.to_string(),
            "cluster": cluster, "bot": "deployer", "roles": ["deploy", "read"],
            "join_token": "github-deploy", "join_method": "github", "issuance_id": format!("i-{jti:032x}"),
            "grant_expires_at": now + 3600,
            "provenance": {
                "line": "github:octo-org/app@refs/heads/main run 7 attempt 1",
                "fulcio": {"8": "https://token.actions.githubusercontent.com", "12": "https://github.com/octo-org/app"},
                "claims": {
                    "iss": "https://token.actions.githubusercontent.com", "repository": "octo-org/app",
                    "repository_id": "74", "run_id": "7", "ref": "refs/heads/main", "kubernetes.io/x": "pod",
                },
            },
        });
        let Value::Object(claims) = claims else { unreachable!() };
        claims
    }

    /// A passport of [`Root::claims`] for `root.test`.
    pub fn passport(&self, audience: &str) -> Token {
        self.passport_of(CLUSTER, audience)
    }

    /// The same in the name of that cluster.
    pub fn passport_of(&self, cluster: &str, audience: &str) -> Token {
        Token::by(&keys::P256, self.claims(cluster, audience)).header("typ", PASSPORT)
    }
}
