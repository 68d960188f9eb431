//! Any other issuer of OIDC tokens: Jenkins, Google, an identity provider of
//! one's own. The policy says everything that the other methods know.
//!
//! The method is called `oidc`; the engine that all share has that file.

use futures_util::future::{FutureExt as _, ready};
use jsonwebtoken::Algorithm;

use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, issuer_url};
use super::rules::{
    self, Constraint, EVENT_NAME, Field, Match, PIPELINE_SOURCE, RUN_PHASE, RUN_TYPE, SSH_RERUN,
};
use super::source::TokenSource;
use crate::document::{Mapping, Mistake, Node};
use crate::error::{Error, Kind};
use crate::text::shown;

/// Where a token is handed over unless an option says otherwise.
const VARIABLE: &str = "MACHINE_ID_ID_TOKEN";
/// What an issuer may sign with. Keys that both sides share (HS256) prove nothing.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// What all subjects of some platform begin with, wherever it runs: so much of it, or less, says nobody's jobs.
const BEGINNINGS: [&str; 10] = [
    "repo:",
    "repository:",
    "repository_owner:",
    "project_path:",
    "organization:",
    "org/",
    "space:",
    "p://",
    "sc://",
    "system:serviceaccount:",
];

/// Whose job it is can be said by any claim. Platforms on hosts of one's own have methods
/// too, and cannot be told by their issuers: what those guard is guarded here.
static FIELDS: &[Field] =
    &[Field::new("claims", Match::Claims).constrains(&[Constraint::Owner(is_open)]).guarded(&[
        EVENT_NAME.by_claim(),
        PIPELINE_SOURCE.by_claim(),
        RUN_TYPE.by_claim(),
        RUN_PHASE.by_claim(),
        SSH_RERUN.by_claim(),
    ])];

/// Whether a pattern leaves open whose job it is: it begins with a wildcard, or with
/// nothing but a first word, as in `repo:*`, which every subject of an issuer begins with.
fn is_open(pattern: &str) -> bool {
    let said = rules::literal_prefix(pattern);
    let begins_all = |said: &str| BEGINNINGS.iter().any(|all| all.starts_with(said));
    let is_word = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let words = said.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count();
    said.is_empty() || said != pattern && (words < 2 && !said.ends_with(is_word) || begins_all(said))
}

const FROM_METADATA: &str = "a machine asks its cloud for an identity token with this authority's URL as audience, and \
    hands it over with --id-token-file or --id-token-env; the section names the cloud's `issuer`";

/// The join method `oidc`.
pub(super) static METHOD: Method = Method {
    elsewhere: &[
        ("generic_oidc", "its section has `issuer`, and in `allow` rules of `claims`"),
        ("jwt", "its section has `issuer`, and in `allow` rules of `claims`"),
        ("gcp", FROM_METADATA),
        ("azure", FROM_METADATA),
        ("env0", "its token is one of its own issuer, with this authority's URL as audience"),
    ],
    detects: |env| env.get(VARIABLE).is_some(),
    source: |env| env.get(VARIABLE).map(|_| TokenSource::variable(VARIABLE)),
    private_variables: &[VARIABLE],
    fields: FIELDS,
    ..Method::new(
        "oidc",
        "any other issuer of OIDC tokens: Jenkins, Google, your own",
        |_| ready(Err(no_token())).boxed(),
        configure,
    )
};

/// What OpenID Connect Core 1.0, section 2, wants.
static PROFILE: TokenProfile = TokenProfile {
    // A job that waits long for its turn still gets in.
    max_lifetime: 12 * 3600,
    run: "oidc:{iss} {sub}",
    ..TokenProfile::RS256
};

fn no_token() -> Error {
    Error::new(Kind::Proof, "there is no OIDC token: nobody knows how any issuer gives one to a job")
        .hint(format!(
            "hand one over in {VARIABLE}, or say where it is with --id-token-env NAME or --id-token-file FILE"
        ))
        .hint("its audience must be the authority's URL, unless the join token names another")
}

fn configure(mut section: Mapping<'_>) -> Configured {
    let issuer = issuer_url(section.need("issuer")?, "issuer")?;
    let only_audience = section.text("audience")?.map(str::to_owned);
    let mut oidc = Oidc { only_audience, ..Oidc::new(&PROFILE, issuer) };
    if let Some(list) = section.take("algorithms") {
        oidc.algorithms = algorithms(list)?;
    }
    Ok(Box::new(oidc.read(FIELDS, section)?))
}

fn algorithms(list: &Node) -> Result<Vec<Algorithm>, Mistake> {
    let one = |node: &Node| {
        let name = node.text("algorithms")?;
        name.parse().ok().filter(|_| ALGORITHMS.contains(&name)).ok_or_else(|| {
            let message = format!("`{}` is no algorithm for an issuer's signatures", shown(name));
            Mistake::new(node.place, message).hint(format!("there are: {}", ALGORITHMS.join(", ")))
        })
    };
    list.list("algorithms")?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn mistakes_are_told() {
        let with = |more: &str| format!("{{issuer: 'https://i', allow: [{{claims: {{sub: x}}}}]{more}}}");
        for (section, message) in [
            ("allow: [{claims: {sub: x}}]".to_owned(), "oidc lacks `issuer`"),
            ("{issuer: 'http://i', allow: []}".to_owned(), "`issuer` is not an https URL"),
            ("{issuer: 'https://i'}".to_owned(), "oidc lacks `allow`"),
            ("{issuer: 'https://i', allow: []}".to_owned(), "`allow` is empty"),
            (
                "{issuer: 'https://i', allow: [{}]}".to_owned(),
                "a rule without conditions would let everybody in",
            ),
            ("{issuer: 'https://i', allow: [{sub: x}]}".to_owned(), "a rule has no `sub`"),
            (with(", algorithms: []"), "`algorithms` is empty"),
            (with(", algorithms: RS256"), "`algorithms` must be a list, not text"),
            (with(", algorithms: [RS256, none]"), "`none` is no algorithm for an issuer's signatures"),
            (with(", algorithms: [HS256]"), "`HS256` is no algorithm for an issuer's signatures"),
            (with(", algorithms: [ES512]"), "`ES512` is no algorithm for an issuer's signatures"),
            (with(", algorithms: [rs256]"), "`rs256` is no algorithm for an issuer's signatures"),
            (with(", audience: ''"), "`audience` is empty"),
            (with(", audience: [a]"), "`audience` must be text, not a list"),
            (with(", audiences: a"), "oidc has no `audiences`"),
        ] {
            assert_eq!(METHOD.configured(&section).unwrap_err().message, message, "{section}");
        }
        assert!(METHOD.configured(&with(", algorithms: [EdDSA, ES256, ES384, PS256], audience: a")).is_ok());
    }

    /// One key set and one join token for all of them: none stands in another's way.
    #[test]
    fn every_algorithm_verifies() {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        use ring::rand::SystemRandom;
        use ring::signature::{self as by, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};

        crate::net::install_crypto();
        let random = SystemRandom::new();
        let base64url = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let pem = include_str!("../../tests/fixtures/keys/rsa-a.pem");
        let pem: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let rsa = RsaKeyPair::from_pkcs8(&STANDARD.decode(pem).unwrap()).unwrap();
        let (fixed256, fixed384) =
            (&by::ECDSA_P256_SHA256_FIXED_SIGNING, &by::ECDSA_P384_SHA384_FIXED_SIGNING);
        let ecdsa = |fixed| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(fixed, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(fixed, pkcs8.as_ref(), &random).unwrap()
        };
        let (p256, p384) = (ecdsa(fixed256), ecdsa(fixed384));
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let ec = |kid: &str, curve: &str, pair: &EcdsaKeyPair| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
            serde_json::json!({"kty": "EC", "kid": kid, "crv": curve, "x": base64url(x), "y": base64url(y)})
        };
        let public = by::RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public());
        let set = serde_json::json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "n": base64url(&public.n), "e": base64url(&public.e)},
            ec("p256", "P-256", &p256), ec("p384", "P-384", &p384),
            {"kty": "OKP", "kid": "ed25519", "crv": "Ed25519", "x": base64url(ed25519.public_key().as_ref())},
        ]});
        let keys = super::super::issuers::KeySet::parse(set.to_string().as_bytes()).unwrap();
        let by_rsa = |padding: &'static dyn by::RsaEncoding| {
            let mut signature = vec![0; rsa.public().modulus_len()];
            rsa.sign(padding, &random, b"message", &mut signature).unwrap();
            ("rsa", signature)
        };
        let all = ALGORITHMS.map(|name| (name, name.parse::<Algorithm>().unwrap()));
        for (name, algorithm) in all {
            let (kid, signature) = match name {
                "RS256" => by_rsa(&by::RSA_PKCS1_SHA256),
                "RS384" => by_rsa(&by::RSA_PKCS1_SHA384),
                "RS512" => by_rsa(&by::RSA_PKCS1_SHA512),
                "PS256" => by_rsa(&by::RSA_PSS_SHA256),
                "PS384" => by_rsa(&by::RSA_PSS_SHA384),
                "PS512" => by_rsa(&by::RSA_PSS_SHA512),
                "ES256" => ("p256", p256.sign(&random, b"message").unwrap().as_ref().to_vec()),
                "ES384" => ("p384", p384.sign(&random, b"message").unwrap().as_ref().to_vec()),
                _ => ("ed25519", ed25519.sign(b"message").as_ref().to_vec()),
            };
            // Under its own name, and under no other of the list.
            for (other, tried) in all {
                let verified = ["rsa", "p256", "p384", "ed25519"].iter().any(|kid| {
                    keys.find(Some(*kid), tried)
                        .iter()
                        .any(|key| crate::jws::verify(&base64url(&signature), b"message", key, tried))
                });
                assert_eq!(verified, name == other, "{name} as {other}");
            }
            assert_eq!(keys.find(Some(kid), algorithm).len(), 1, "{name}");
        }
    }

    #[test]
    fn provenance_names_the_subject() {
        let claims = serde_json::json!({"iss": "https://i", "sub": "job\n7"});
        let provenance = PROFILE.provenance("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "oidc:https://i job\\u{a}7");
    }

    #[test]
    fn a_token_that_was_handed_over_is_found() {
        let env = Environment::from_pairs([(VARIABLE, "a.b.c")]);
        assert_eq!((METHOD.source)(&env), Some(TokenSource::variable(VARIABLE)));
        assert!((METHOD.detects)(&env) && !(METHOD.detects)(&Environment::default()));
    }
}
