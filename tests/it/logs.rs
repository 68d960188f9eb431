//! No text of a claim, a setting, a path or a server becomes a command of a CI
//! system: everything that the binary says is read as each of them reads it.

mod platforms;

use std::io::Write as _;
use std::process::Stdio;

use machine_id::text::{is_inert, json, lines, shown, shown_exactly, shown_long, word};
use proptest::prelude::*;
use serde_json::{Value, json as value};

use crate::support::base64url;
use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, World};
use crate::support::process::machine_id;
use platforms::{COMMANDS, HONEST, found, github};

/// What commands are made of, and what readers of logs trip over.
const PARTS: &[&str] = &[
    "::",
    ":",
    "evil",
    "::evil a=b::",
    "##",
    "#",
    "[",
    "]",
    "##[evil]",
    "##vso[task.evil]",
    "vso",
    "##teamcity[evil 'x']",
    "section_start:1:evil\r\u{1b}[0K",
    "travis_fold",
    "travis_fold:start:evil",
    "--- ",
    "+++ ",
    "~~~ ",
    "^^^ +++",
    "<0>",
    "\u{1b}[8mha:",
    "\u{1b}]8;;",
    "\u{9b}",
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "  ",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{a0}",
    "\u{200b}",
    "\u{ad}",
    "\u{fe0f}",
    "\u{488}",
    "\u{61c}",
    "\u{202e}",
    "\u{2066}",
    "\u{feff}",
    "\u{e0041}",
    "%0A",
    "%0D%0A::evil::",
    "%25",
    "\\n",
    "\\u{a}",
    "x",
    "é",
    "'",
    "\"",
    "`",
    "{",
    "}",
    "=",
    ",",
    "/",
    "-",
];

fn hostile() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PARTS), 1..12).prop_map(|parts| parts.concat())
}

/// Nothing of what was printed is a command, but for ours in a GitHub job, whose data is none either: the runner
/// writes it into the log.
#[track_caller]
fn is_no_command(log: &str, what: &str) {
    let ours = ["error title=machine-id", "warning title=machine-id", "group", "endgroup"];
    let mut rest = String::new();
    for line in log.split('\n') {
        match ours.iter().find_map(|name| line.strip_prefix(&format!("::{name}::"))) {
            Some(data) => {
                rest +=
                    &data.replace("%0A", "\n").replace("%0D", "\r").replace("%3A", ":").replace("%25", "%");
            }
            None => rest += line,
        }
        rest.push('\n');
    }
    let found = found(&rest);
    assert!(found.is_empty(), "{what}: {found:?} in\n{log}");
}

#[test]
fn what_platforms_take_as_a_command_is_broken_up_and_what_looks_like_one_is_not() {
    for command in COMMANDS {
        assert!(!found(command).is_empty(), "nobody takes {command:?}");
        for printed in [lines(command), lines(&format!("  {command}")), lines(&format!("a\n{command}\n"))] {
            is_no_command(&printed, command);
        }
        is_no_command(&format!("error: {}", shown(command)), command);
        is_no_command(&json(&value!({ *command: command }).to_string()), command);
    }
    for honest in HONEST {
        for same in
            [lines(honest), shown(honest), shown_long(honest), lines(&format!("  {honest}"))[2..].to_owned()]
        {
            assert_eq!(same, *honest);
        }
        assert!(is_inert(honest));
    }
    assert_eq!(lines("  ::x::"), "  \\u{3a}:x::");
    assert_eq!(lines("##vso[x]"), "##vso\\u{5b}x]");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever a message is put together from, what prints it has the last word.
    #[test]
    fn no_text_becomes_a_command(text in hostile(), before in hostile()) {
        let put_together = [
            text.clone(),
            format!("{before}{text}"),
            format!("{}{}", shown(&before), shown(&text)),
            format!("a:\n  {}: {}", shown_exactly(&before), word(&text)),
            shown_long(&before) + &text,
        ];
        for message in put_together {
            let printed = lines(&message);
            is_no_command(&printed, &message);
            prop_assert_eq!(lines(&printed), printed.clone());
            prop_assert_eq!(printed.matches('\n').count(), message.matches('\n').count());
        }
        let object = value!({ before: [text.clone(), { "##vso": text }] });
        for written in [object.to_string(), format!("{object:#}")] {
            let printed = json(&written);
            is_no_command(&printed, &written);
            prop_assert_eq!(lines(&printed), printed.clone());
            prop_assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), object.clone());
        }
    }
}

/// Runs the binary with hostile text wherever it takes some; everything that it says.
fn everything_said(text: &str, in_github: bool) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let claims = value!({ text: text, "sub": text, "iss": text }).to_string();
    let token = format!("{}.{}.c2ln", base64url(r#"{"alg":"RS256"}"#), base64url(&claims));
    let name = serde_json::to_string(text).unwrap();
    let policy = format!(
        "kind: bot\nversion: v1\nmetadata: {{name: {name}}}\nspec: {{roles: [{name}], {name}: 1}}\n---\nkind: token\nversion: v2\n\
         metadata: {{name: t}}\nspec: {{bot_name: {name}, join_method: github, github: {{allow: [{{repository: {name}}}]}}}}\n"
    );
    let good = "kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [Bot], bot_name: b, join_method: oidc, oidc: \
                {issuer: https://i.test, allow: [{claims: {sub: x}}]}}\n---\nkind: bot\nversion: v1\nmetadata: {name: b}\n\
                spec: {roles: [r]}\n---\nkind: role\nversion: v7\nmetadata: {name: r}\nspec: {allow: {logins: [x]}}\n";
    let config = format!("version: v1\nauthority: {name}\n{name}: {name}\n");
    for (file, text) in
        [("policy.yaml", &*policy), ("good.yaml", good), ("claims", &claims), ("config", &config)]
    {
        std::fs::write(path(file), text).unwrap();
    }
    let (policy, good, claims, config) =
        (path("policy.yaml"), path("good.yaml"), path("claims"), path("config"));
    let job = [
        "once",
        "--authority",
        "https://127.0.0.1:1",
        "--token",
        "t",
        "--join-method",
        "oidc",
        "--timeout",
        "1s",
    ];
    let with = |more: &[&str]| [&job[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let runs = [
        words(&[text]),
        words(&["once", &format!("--{text}")]),
        words(&["inspect", "--", text]),
        words(&["inspect", "-"]),
        words(&["inspect", "-", "--format", "json"]),
        words(&["cleanup", "--", text]),
        words(&["authority", "check", &policy]),
        words(&["authority", "check", "--format", "json", &policy]),
        words(&["authority", "check", &good, "--token", "t", "--claims", &claims]),
        words(&["authority", "check", &good, "--token", "t", "--claims", &claims, "--format", "json"]),
        words(&["authority", "check", &good, &format!("--token={text}"), "--claims", &claims]),
        words(&["authority", "explain", &format!("--data-dir={text}"), "--", text]),
        words(&["host", "refresh", &format!("--dir={text}"), &format!("--authority={text}")]),
        with(&["--config", &config]),
        with(&["-v", &format!("--destination=/tmp/{text}/x")]),
        with(&["-v", &format!("--output=ssh,name={text}")]),
        with(&["-v", &format!("--id-token-file={text}")]),
        with(&["-v", &format!("--ca-file={text}")]),
        with(&["-v", &format!("--ca-pin={text}")]),
        with(&["--", text]),
        words(&["once"]),
    ];
    let said = |args: Vec<String>| {
        let mut command = machine_id(&args);
        if in_github {
            command.env("GITHUB_ACTIONS", "true");
        }
        // Where options say nothing, these do.
        for name in ["AUTHORITY", "TOKEN", "CA_FILE", "STORAGE", "TTL", "JOIN_METHOD"] {
            command.env(format!("MACHINE_ID_{name}"), text);
        }
        command.env("MACHINE_ID_ID_TOKEN", text).env("XDG_RUNTIME_DIR", text).env("TMPDIR", folder.path());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(token.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (format!("{args:?}"), text(&output.stdout) + "\n" + &text(&output.stderr))
    };
    runs.into_iter().map(said).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_the_binary_says_is_a_command(text in hostile(), in_github in any::<bool>()) {
        for (run, said) in everything_said(&text, in_github) {
            is_no_command(&said, &run);
        }
    }
}

#[test]
fn every_command_of_every_platform_in_everything_that_the_binary_reads() {
    for text in [COMMANDS.concat(), COMMANDS.join("\n"), COMMANDS.join(" ")] {
        for (run, said) in everything_said(&text, true) {
            is_no_command(&said, &run);
        }
    }
}

#[test]
fn claims_and_servers_say_nothing_to_a_ci_system() {
    let world = World::start();
    let job = world.github();
    let hostile = COMMANDS.concat();
    // A job that is refused, and what its operator sees of it.
    world.issuer.change_claims("github", |claims| {
        claims.insert(hostile.clone(), hostile.clone().into());
        for name in ["repository", "sub", "ref", "actor"] {
            claims.insert(name.to_owned(), hostile.clone().into());
        }
    });
    let refused = job.once(["-v"]).failed(4);
    is_no_command(&without_masks(&refused.stderr), "a refusal");
    let id = refused.stderr.split("authority explain ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    for output in [
        world.authority.run(["explain", &id]),
        world.authority.run(["audit"]),
        world.authority.run(["audit", "--format", "json"]),
    ] {
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("evil") && output.status.success(), "{said}");
        is_no_command(&said, "an operator's command");
    }
    world.authority.write_policy(&format!("kind: bot\n{}: x\n", serde_json::to_string(&hostile).unwrap()));
    world.authority.wait_for_stderr("policy not taken");
    is_no_command(&world.authority.stderr(), "the authority's log");
    // An authority that is another's, and a platform.
    let gateway = Gateway::start(&world.authority);
    let problem = value!({
        "type": "urn:machine-id:problem:refused", "title": hostile, "status": 403, "detail": hostile, "code": hostile,
        "hint": hostile, "denial_id": hostile, "claims": { hostile.clone(): hostile, "sub": hostile }, "reason": hostile,
    });
    gateway.meet(&[Trouble::Answer(
        403,
        "Content-Type: application/problem+json".to_owned(),
        problem.to_string(),
    )]);
    let lied_to = world.github().env("HTTPS_PROXY", gateway.url()).once(["-v"]);
    assert!(lied_to.stderr.contains("evil"), "{}", lied_to.stderr);
    is_no_command(&without_masks(&lied_to.stderr), "another authority's answer");
    world.issuer.fail(Endpoint::Token, Fault::Answer(400, String::new(), hostile));
    let platform = job.once(["-v"]).failed(3);
    assert!(platform.stderr.contains("evil"), "{}", platform.stderr);
    is_no_command(&platform.stderr, "the platform's answer");
}

/// The masks that a job asks for are of its token's signature alone.
fn without_masks(log: &str) -> String {
    let masks = github(log).iter().filter(|name| *name == "add-mask").count();
    assert!(masks <= 1, "{log}");
    let is_mask = |line: &&str| {
        line.strip_prefix("::add-mask::")
            .is_some_and(|text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
    };
    log.split('\n').filter(|line| !is_mask(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn pem_in_place_of_a_path_is_not_printed() {
    let world = World::start();
    let pem = std::fs::read_to_string(world.authority.ca_file()).unwrap();
    for at in [pem.clone(), format!("\n{pem}\n"), pem.replace('\n', "\\n")] {
        let refused = world.github().env("MACHINE_ID_CA_FILE", at).once([]).failed(2);
        refused
            .says(&["--ca-file (MACHINE_ID_CA_FILE) holds PEM itself", "hint: write it into a file first"]);
        assert!(!refused.stderr.contains("MII"), "{}", refused.stderr);
    }
}

#[test]
fn what_secret_stores_put_around_a_setting_does_not_count() {
    let world = World::start();
    let pin = String::from_utf8(world.authority.run(["export", "tls-ca-pin"]).stdout).unwrap();
    let authority = world.authority.url();
    for (before, after) in [("", "\n"), ("", "\r\n"), (" ", " \n\n"), ("\n", "\t")] {
        let around = |text: &str| format!("{before}{}{after}", text.trim());
        let job = world.github().without("MACHINE_ID_CA_FILE").env("MACHINE_ID_CA_PIN", around(&pin));
        let job = job
            .env("MACHINE_ID_AUTHORITY", around(&authority))
            .env("MACHINE_ID_TOKEN", around("github-deploy"));
        job.env("MACHINE_ID_TTL", around("10m"))
            .env("MACHINE_ID_JOIN_METHOD", around("github"))
            .once([])
            .good();
    }
    for quoted in [format!("\"{}\"", pin.trim()), format!("'{}'\n", pin.trim())] {
        let job = world.github().without("MACHINE_ID_CA_FILE").env("MACHINE_ID_CA_PIN", quoted);
        job.once([])
            .failed(2)
            .says(&["the value of MACHINE_ID_CA_PIN stands in quotes", "hint: leave them out"]);
    }
    let job = world.github().without("MACHINE_ID_CA_FILE").env("MACHINE_ID_CA_PIN", "sha256:\u{1b}0f");
    job.once([])
        .failed(2)
        .says(&["the CA pin `sha256:\\u{1b}0f` is not `sha256:` and 64 hexadecimal digits"]);
}

#[test]
fn a_token_that_is_empty_or_too_long_is_told_before_it_is_sent() {
    let world = World::start();
    let (job, sent) = (world.github(), world.authority.audit().len());
    for (body, says) in [
        (r#"{"value":""}"#.to_owned(), "GitHub's token endpoint answered with an empty token"),
        (r#"{"value":" \n"}"#.to_owned(), "GitHub's token endpoint answered with an empty token"),
        (r#"{"value":null}"#.to_owned(), "GitHub's token endpoint answered without a token"),
        (r#"{"value":"a b"}"#.to_owned(), "GitHub's token endpoint: that is no token"),
        (
            value!({ "value": "x".repeat(20_000) }).to_string(),
            "GitHub's token endpoint: the token is 20000 bytes long, and an authority reads 16384 (16 KiB)",
        ),
    ] {
        world.issuer.fail(Endpoint::Token, Fault::Body(body));
        job.once([]).failed(3).says(&[says, "hint: "]);
    }
    let long = Job::new().told(&world.authority, "here").env("MACHINE_ID_ID_TOKEN", "x".repeat(20_000));
    let refused = long.once(["--join-method", "oidc"]).failed(3);
    refused.says(&[
        "MACHINE_ID_ID_TOKEN: the token is 20000 bytes long",
        "hint: have the platform put less into it",
    ]);
    assert_eq!(world.authority.audit().len(), sent);
}
