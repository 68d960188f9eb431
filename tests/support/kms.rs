//! AWS KMS for CA keys: moto, behind TLS and a proxy that leads every host of AWS's to it. Needs `tests/support/sts/install`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::authority::Builder;
use super::issuer::{Endpoint, Fault, Issuer, Request};
use super::sts::Sts;
use super::{page, policies};

/// What `keys` says of it.
pub const KEYS: &str = "awskms:alias/ca";
const REGION: &str = "eu-central-1";

/// KMS in that region.
pub struct Kms {
    cloud: Issuer,
    /// Which it is.
    pub moto: Sts,
    home: TempDir,
}

impl Kms {
    /// With an authority that may do what the page allows.
    #[track_caller]
    pub fn start() -> Self {
        let kms = Self { cloud: Issuer::start(), moto: Sts::start(), home: TempDir::new().unwrap() };
        kms.moto.behind(&kms.cloud);
        kms.allow(&["init.json", "serve.json"]);
        kms
    }

    /// Gives the authority's user the rights of these files of the page; moto knows actions alone, and no policy without any.
    pub fn allow(&self, files: &[&str]) {
        self.allow_actions(files.iter().flat_map(|file| actions(file)));
    }

    /// The same of these actions.
    pub fn allow_actions(&self, actions: impl Iterator<Item = String>) {
        let actions: Vec<String> = actions.chain(["kms:ListKeys".to_owned()]).collect();
        let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
        self.moto.control("/allow", &json!({"Version": "2012-10-17", "Statement": [statement]}));
    }

    /// What has its keys there has in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let others = [
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("HTTPS_PROXY", self.cloud.proxy()),
            // What platforms are asked for is not AWS's.
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("SSL_CERT_FILE", self.cloud.ca_file().display().to_string()),
            ("HOME", self.home.path().display().to_string()),
        ];
        let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.moto.environment("authority").into_iter().chain(others).collect()
    }

    /// An authority whose keys are made there.
    pub fn authority(&self, issuer: &Issuer, suite: &str) -> Builder {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        policies::ours(issuer).keys(KEYS, &environment).init(["--suite", suite])
    }

    /// The aliases and states of all that it has.
    pub fn keys(&self) -> Vec<(String, String, String)> {
        let keys = self.moto.control("/keys", &json!({"region": REGION}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |key: &Value| (text(&key["aliases"][0]), text(&key["spec"]), text(&key["state"]));
        keys.as_array().unwrap().iter().map(one).collect()
    }

    /// Enables or disables a key.
    pub fn enable(&self, alias: &str, enabled: bool) {
        let asked = json!({"region": REGION, "alias": alias, "enabled": enabled});
        self.moto.control("/enable", &asked);
    }

    /// The actions that it was asked for, by now.
    pub fn asked(&self) -> BTreeSet<String> {
        let requests = self.cloud.requests();
        let target = |request: &Request| {
            assert_eq!(request.host, "kms.eu-central-1.amazonaws.com");
            Some(request.header("x-amz-target")?.replace("TrentService.", "kms:"))
        };
        requests.iter().filter_map(target).collect()
    }

    /// It is not there, in this way.
    pub fn fails(&self, fault: Fault) {
        self.cloud.fail(Endpoint::Other, fault);
    }

    /// It is there again.
    pub fn heals(&self) {
        self.moto.behind(&self.cloud);
    }

    /// Puts another key under an alias, of that spec and in PEM.
    pub fn exchange(&self, alias: &str, spec: &str, pem: &str) {
        let asked = json!({"region": REGION, "alias": alias, "spec": spec, "pem": pem});
        self.moto.control("/exchange", &asked);
    }
}

/// The actions that a policy of the page allows.
#[track_caller]
pub fn actions(file: &str) -> Vec<String> {
    let policy: Value = serde_json::from_str(&page::file("../keys.md", file)).unwrap();
    let mut actions = Vec::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Value::String(action) => actions.push(action.clone()),
            several => {
                actions.extend(several.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()))
            }
        }
    }
    actions
}
