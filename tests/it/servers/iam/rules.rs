//! Where a join token's rules may stand, and which ones are none.

use super::Aws;
use crate::support::once::Outcome;
use crate::support::process;

#[test]
fn rules_stand_in_the_section_or_as_teleport_has_them() {
    let aws = Aws::start();
    let check = |spec: &str| {
        let file = aws.world.authority.data_dir().join("checked.yaml");
        let bot = "kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {roles: [r]}\n---\n";
        let role = "kind: role\nversion: v7\nmetadata: {name: r}\nspec: {allow: {logins: [x]}}\n---\n";
        let head = "kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [Bot], bot_name: b, ";
        std::fs::write(&file, format!("{bot}{role}{head}{spec}}}\n")).unwrap();
        let outcome = Outcome::of(&process::run(process::machine_id(["authority", "check"]).arg(file)));
        (outcome.code, outcome.stderr)
    };
    let rules = "allow: [{aws_account: '123456789012'}]";
    for good in [format!("iam: {{{rules}}}"), rules.to_owned()] {
        let (code, stderr) = check(&format!("join_method: iam, {good}"));
        assert_eq!(code, 0, "{stderr}");
    }
    for (spec, message) in [
        (format!("join_method: iam, {rules}, iam: {{{rules}}}"), "the token has both `allow` and `iam`"),
        ("join_method: iam".to_owned(), "the token lacks its section `iam`"),
        ("join_method: iam, allow: []".to_owned(), "`allow` is empty"),
        (
            "join_method: iam, allow: [{aws_arn: '*'}]".to_owned(),
            "a rule does not say whose AWS account may join",
        ),
        ("join_method: github, allow: [{repository: o/r}]".to_owned(), "the token's `spec` has no `allow`"),
    ] {
        let (code, stderr) = check(&spec);
        assert!(code == 2 && stderr.contains(message), "{spec}: {code}\n{stderr}");
    }
}
