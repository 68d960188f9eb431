//! AWS IAM: a machine or job with AWS credentials has AWS say who it is.
//!
//! The client signs a request for `sts:GetCallerIdentity` and hands it over
//! unsent; the authority checks every part of it, sends it to AWS, and believes
//! AWS's answer. The request carries the hash of the job's keys in a header
//! that is signed too, so it is good for those keys and this authority alone.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::oidc::text;
use super::rules::{self, Condition, Field, Rule, Test, Want};
use super::{
    BoxFuture, Desk, Failure, Identity, Job, JoinMethod, Presented, Provenance, Replay, Supposed, Verifier,
};
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::Result;
use crate::text::{hex, shown};
use crate::wire::Proof;

mod credentials;
mod endpoint;
mod request;
mod sts;

use endpoint::{PARTITIONS, Partition};
use request::Signed;

/// The join method `iam`.
#[derive(Debug)]
pub struct Iam;

/// The field of its proofs.
const PROOF: &str = "sts_request";
/// The body that is signed, and sent.
const ACTION: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// The header that says whom the request is for, and for which keys.
const AUDIENCE_HEADER: &str = "x-machine-id-audience";
/// How old a signature may be, in seconds; AWS itself takes them for a quarter of an hour.
const MAX_AGE: i64 = 300;
/// Who speaks for AWS, in the records of used proofs.
const ISSUER: &str = "https://sts.amazonaws.com";

/// The SHA-256 of [`ACTION`], in hexadecimal digits.
fn body_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| hex(digest(&SHA256, ACTION.as_bytes()).as_ref()));
    &HASH
}

static FIELDS: &[Field] = &[Field::new("aws_account", Test::Exact), Field::new("aws_arn", Test::Glob)];

impl JoinMethod for Iam {
    fn name(&self) -> &'static str {
        "iam"
    }

    fn summary(&self) -> &'static str {
        "AWS: whatever has credentials of an IAM role or user (EC2, ECS, EKS, Lambda, CodeBuild)"
    }

    /// Nothing says so for sure: jobs of other platforms run on EC2, and have AWS variables for their own work.
    fn detects(&self, _: &Environment) -> bool {
        false
    }

    fn takes_id_token(&self) -> bool {
        false
    }

    fn prove<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        Box::pin(async move { Ok(credentials::sign(job).await?.into()) })
    }

    fn unverified(&self, proof: &Proof) -> Result<Map<String, Value>, Denial> {
        Ok(Signed::read(proof)?.claims())
    }

    fn telling(&self) -> &'static [&'static str] {
        &["aws_account", "aws_arn", "aws_access_key_id", "aws_sts_host", "signed_at"]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn can_bind(&self) -> bool {
        true
    }

    fn is_ci(&self) -> bool {
        false
    }

    fn takes_rules_beside(&self) -> bool {
        true
    }

    fn configure(&self, mut section: Mapping<'_>) -> Result<Box<dyn Verifier>, Mistake> {
        let partition = match section.take("partition") {
            None => PARTITIONS.first(),
            Some(node) => {
                let unknown = || {
                    let names: Vec<&str> = PARTITIONS.iter().map(|partition| partition.name).collect();
                    Mistake::new(node.place, "`partition` is not one of AWS's")
                        .hint(format!("there are: {}", names.join(", ")))
                };
                Some(Partition::of_name(node.text("partition")?).ok_or_else(unknown)?)
            }
        };
        let rules = rules::read(section.need("allow")?, FIELDS, &[])?;
        let place = section.place;
        section.finish()?;
        let partition = partition.ok_or_else(|| Mistake::new(place, "there is no partition"))?;
        rules.iter().try_for_each(|rule| anchored(rule, partition))?;
        Ok(Box::new(Caller { partition, rules }))
    }
}

/// A rule must name its account: anybody can have one, with a role of any name in it.
fn anchored(rule: &Rule, partition: &Partition) -> Result<(), Mistake> {
    let anchors = |condition: &Condition| match (condition.field.as_str(), &condition.want) {
        ("aws_account", Want::Exact(account)) => sts::is_account(account),
        ("aws_arn", Want::Glob(pattern)) => account_of(rules::literal_prefix(pattern), partition).is_some(),
        _ => false,
    };
    if rule.conditions.iter().any(anchors) {
        return Ok(());
    }
    Err(Mistake::new(rule.place, "a rule does not say whose AWS account may join").hint(format!(
        "add `aws_account: \"123456789012\"`, or begin `aws_arn` with `arn:{}:sts::123456789012:`",
        partition.name
    )))
}

/// The account that an ARN begins with.
fn account_of<'a>(arn: &'a str, partition: &Partition) -> Option<&'a str> {
    let rest = arn.strip_prefix("arn:")?.strip_prefix(partition.name)?.strip_prefix(':')?;
    let rest = rest.strip_prefix("sts::").or_else(|| rest.strip_prefix("iam::"))?;
    rest.split_once(':').map(|(account, _)| account).filter(|account| sts::is_account(account))
}

/// The authority's half.
#[derive(Debug)]
struct Caller {
    partition: &'static Partition,
    rules: Vec<Rule>,
}

impl Verifier for Caller {
    fn verify<'a>(&'a self, proof: &'a Proof, at: &'a Desk<'a>) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async move {
            let signed = Signed::read(proof)?;
            // Whatever can be judged here is: AWS is asked about nobody's request but ours.
            signed.check(self.partition, at).map_err(|denial| denial.with_claims(&signed.claims(), false))?;
            let caller = sts::ask(at.issuers.client(), &signed, self.partition).await?;
            // The authority's time may have passed while AWS was thinking.
            let replay =
                Replay { issuer: ISSUER.to_owned(), id: signed.id.clone(), held_until: signed.good_until() };
            let provenance = Provenance { line: shown(&format!("iam:{}", caller.arn)), fulcio: Vec::new() };
            Ok(Identity {
                claims: caller.claims(signed.claims()),
                bound: true,
                replay,
                provenance,
                membership: None,
            })
        })
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn takes_unbound(&self) -> bool {
        false
    }

    fn suppose(&self, claims: Map<String, Value>) -> Result<Supposed, Denial> {
        match sts::check_arn(text(&claims, "aws_arn"), text(&claims, "aws_account"), self.partition) {
            Ok(()) => Ok(Supposed { claims }),
            Err(why) => Err(Denial::new(Reason::ClaimInvalid, why).with_claims(&claims, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    fn configure(section: &str) -> Result<Box<dyn Verifier>, Mistake> {
        let nodes = document::parse(section).unwrap();
        Iam.configure(nodes[0].mapping("iam").unwrap())
    }

    #[test]
    fn a_rule_says_whose_account() {
        for good in [
            "aws_account: '123456789012'",
            "aws_arn: 'arn:aws:sts::123456789012:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws:iam::123456789012:*'",
            "aws_account: '123456789012', aws_arn: '*/deploy/*'",
        ] {
            assert!(configure(&format!("allow: [{{{good}}}]")).is_ok(), "{good}");
        }
        for bad in [
            "aws_arn: '*'",
            "aws_arn: 'arn:aws:sts::*'",
            "aws_arn: 'arn:aws:sts::12345678901*:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws:sts::123456789012*'",
            "aws_arn: 'arn:*:sts::123456789012:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws-cn:sts::123456789012:assumed-role/deploy/*'",
            "aws_account: '12345'",
            "aws_account: abcdefghijkl",
        ] {
            let mistake = configure(&format!("allow: [{{{bad}}}]")).unwrap_err();
            assert_eq!(mistake.message, "a rule does not say whose AWS account may join", "{bad}");
        }
        assert!(
            configure("{partition: aws-cn, allow: [{aws_arn: 'arn:aws-cn:sts::123456789012:*'}]}").is_ok()
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{}", "iam lacks `allow`"),
            ("allow: []", "`allow` is empty: nobody could join"),
            ("allow: [{aws_account: 123456789012}]", "`aws_account` must be text, not a number"),
            ("allow: [{aws_account: '12345678901?'}]", "`aws_account` takes no wildcards"),
            ("allow: [{aws_acount: '123456789012'}]", "a rule has no `aws_acount`"),
            (
                "{partition: aws-mars, allow: [{aws_account: '123456789012'}]}",
                "`partition` is not one of AWS's",
            ),
            (
                "{require_key_binding: true, allow: [{aws_account: '123456789012'}]}",
                "iam has no `require_key_binding`",
            ),
        ] {
            assert_eq!(configure(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn supposed_callers_are_whole() {
        let verifier = configure("allow: [{aws_account: '123456789012'}]").unwrap();
        let claims = |account: &str, arn: &str| {
            serde_json::json!({"aws_account": account, "aws_arn": arn}).as_object().unwrap().clone()
        };
        let arn = "arn:aws:sts::123456789012:assumed-role/deploy/x";
        assert!(verifier.suppose(claims("123456789012", arn)).is_ok());
        assert!(verifier.suppose(claims("210987654321", arn)).is_err());
        assert!(verifier.suppose(Map::new()).is_err());
    }
}
