//! AWS IAM: a machine or job with AWS credentials has AWS say who it is.
//!
//! The client signs a request for `sts:GetCallerIdentity` and hands it over
//! unsent; the authority checks every part of it, sends it to AWS, and believes
//! AWS's answer. The request carries the hash of the job's keys in a header
//! that is signed too, so it is good for those keys and this authority alone.

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value};

use super::jwt::text;
use super::method::{Configured, Method};
use super::rules::{self, Condition, Field, Grammar, Rule, Shape, Want};
use super::verify::{Failure, Identity, Provenance, Replay, Verifier, VerifyContext};
use crate::aws::region::{PARTITIONS, Partition};
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake, Node};
use crate::text::word;
use crate::wire::Proof;

mod endpoint;
mod proof;
mod prove;
mod request;
mod sts;

use request::StsRequest;

/// Who speaks for AWS, in the records of used proofs.
const ISSUER: &str = "https://sts.amazonaws.com";

/// Who may sign. A user's path can hold anything.
static ARN: Grammar = Grammar::Forms(&[
    "arn:{partition}:sts::{account}:assumed-role/{role}/{session}",
    "arn:{partition}:sts::{account}:federated-user/{name}",
    "arn:{partition}:iam::{account}:user/{path*}",
    "arn:{partition}:iam::{account}:root",
]);
const ACCOUNT: Shape = Shape::new(&["{digit:12}"], "the account's twelve digits, in quotes");

static FIELDS: &[Field] = &[
    Field::exact("aws_account").shape(ACCOUNT),
    Field::parted("aws_arn", &ARN).says(|arn| rules::of_parts(&ARN, arn, &[("account", "aws_account")])),
];

/// The join method `iam`. Nothing says for sure that a job is of AWS: jobs of
/// other platforms run on EC2, and have AWS variables for their own work.
pub(super) static METHOD: Method = Method {
    elsewhere: &[
        ("ec2", "a machine of AWS joins by the role of its instance profile; `allow` names account and role"),
        ("aws", "what has credentials of AWS joins by its role or user; `allow` names both"),
    ],
    takes_id_token: false,
    unverified: |proof| Ok(StsRequest::read(proof)?.claims()),
    telling: &["aws_account", "aws_arn", "aws_access_key_id", "aws_sts_host", "signed_at"],
    fields: FIELDS,
    can_bind: true,
    takes_rules_beside: true,
    is_ci: false,
    job: &["CODEBUILD_BUILD_ID"],
    ..Method::new(
        "iam",
        "AWS: whatever has credentials of an IAM role or user (EC2, ECS, EKS, Lambda, CodeBuild)",
        |job| prove::sign(job).boxed(),
        configure,
    )
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let [usual, ..] = &PARTITIONS;
    let partition = section.read("partition", partition).unwrap_or(usual);
    let rules = section.require("allow", |node, _| rules::read(node, FIELDS)).unwrap_or_default();
    section.finish()?;
    // Anybody can have an account, with a role of any name in it.
    let anchors = |condition: &Condition| match (condition.field.as_str(), &condition.want) {
        ("aws_account", Want::Exact(account)) => sts::is_account(account),
        ("aws_arn", Want::Parts(pattern)) => {
            sts::split_arn(rules::literal_prefix(pattern.text()), partition).is_some()
        }
        _ => false,
    };
    let hint = format!(
        "add `aws_account: \"123456789012\"`, or begin `aws_arn` with `arn:{}:sts::123456789012:`",
        partition.name
    );
    rules::anchor(&rules, anchors, "a rule does not say whose AWS account may join", &hint).map_err(
        |mistake| {
            let is_account = |condition: &Condition| condition.field == "aws_account";
            let names_one = rules
                .iter()
                .any(|rule| rule.place == mistake.place && rule.conditions.iter().any(is_account));
            if names_one {
                Mistake::new(mistake.place, "`aws_account` is not the twelve digits of an account")
                    .hint("write it without dashes, in quotes: `aws_account: \"123456789012\"`")
            } else {
                mistake
            }
        },
    )?;
    Ok(Box::new(IamVerifier { partition, rules }))
}

fn partition(node: &Node, key: &str) -> Result<&'static Partition, Mistake> {
    let text = node.text(key)?;
    let names = || PARTITIONS.each_ref().map(|partition| partition.name).join(", ");
    PARTITIONS.iter().find(|partition| partition.name == text).ok_or_else(|| {
        Mistake::new(node.place, format!("`{key}` is not one of AWS's"))
            .hint(format!("there are: {}", names()))
    })
}

/// The authority's half.
#[derive(Debug)]
struct IamVerifier {
    partition: &'static Partition,
    rules: Vec<Rule>,
}

impl Verifier for IamVerifier {
    fn verify<'a>(
        &'a self,
        proof: &'a Proof,
        context: &'a VerifyContext<'a>,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        async move {
            let request = StsRequest::read(proof)?;
            // Whatever can be judged here is: AWS is asked about nobody's request but ours.
            let held = request
                .check(self.partition, context)
                .map_err(|denial| denial.with_claims(&request.claims(), false))?;
            let caller = sts::ask(context.issuers.client(), &request, self.partition).await?;
            let mut claims = request.claims();
            claims.extend(caller);
            let provenance = self.provenance(&claims, context.join_token);
            let replay = Replay { issuer: ISSUER.to_owned(), id: request.id, held };
            Ok(Identity { claims: claims.into(), bound: true, replay, provenance, join: None })
        }
        .boxed()
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn fixed(&self) -> Vec<(&str, String)> {
        vec![("aws_arn", format!("arn:{}:*", self.partition.name))]
    }

    fn takes_unbound(&self) -> bool {
        false
    }

    fn provenance(&self, claims: &Map<String, Value>, _join_token: &str) -> Provenance {
        Provenance { line: format!("iam:{}", word(text(claims, "aws_arn"))), fulcio: Vec::new() }
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        sts::check_arn(text(claims, "aws_arn"), text(claims, "aws_account"), self.partition)
            .map_err(|why| Denial::new(Reason::ClaimInvalid, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_whose_account() {
        for good in [
            "aws_account: '123456789012'",
            "aws_arn: 'arn:aws:sts::123456789012:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws:iam::123456789012:*'",
            "aws_account: '123456789012', aws_arn: 'arn:*:sts::*:assumed-role/deploy/*'",
        ] {
            assert!(METHOD.configured(&format!("allow: [{{{good}}}]")).is_ok(), "{good}");
        }
        for bad in [
            "aws_arn: '*'",
            "aws_arn: 'arn:aws:sts::*'",
            "aws_arn: 'arn:aws:sts::12345678901*:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws:sts::123456789012*'",
            "aws_arn: 'arn:*:sts::123456789012:assumed-role/deploy/*'",
            "aws_arn: 'arn:aws-cn:sts::123456789012:assumed-role/deploy/*'",
        ] {
            let mistake = METHOD.configured(&format!("allow: [{{{bad}}}]")).unwrap_err();
            assert_eq!(mistake.message, "a rule does not say whose AWS account may join", "{bad}");
        }
        assert!(
            METHOD
                .configured("{partition: aws-cn, allow: [{aws_arn: 'arn:aws-cn:sts::123456789012:*'}]}")
                .is_ok()
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{}", "iam lacks `allow`"),
            ("allow: []", "`allow` is empty"),
            ("allow: [{aws_account: 123456789012}]", "`aws_account` must be text, not a number"),
            ("allow: [{aws_account: '12345678901?'}]", "`aws_account` takes no wildcards"),
            (
                // A user may have a path with that in it.
                "allow: [{aws_account: '123456789012', aws_arn: '*:assumed-role/deploy/*'}]",
                "`aws_arn` has a wildcard that could stand for several parts",
            ),
            (
                "allow: [{aws_account: 1234-5678-9012}]",
                "`aws_account` is not the twelve digits of an account",
            ),
            ("allow: [{aws_account: '12345'}]", "`aws_account` is not the twelve digits of an account"),
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
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn assumed_callers_are_whole() {
        let verifier = METHOD.configured("allow: [{aws_account: '123456789012'}]").unwrap();
        let claims = |account: &str, arn: &str| {
            serde_json::json!({"aws_account": account, "aws_arn": arn}).as_object().unwrap().clone()
        };
        let arn = "arn:aws:sts::123456789012:assumed-role/deploy/x";
        assert!(verifier.assume(claims("123456789012", arn)).is_ok());
        assert!(verifier.assume(claims("210987654321", arn)).is_err());
        assert!(verifier.assume(Map::new()).is_err());
    }
}
