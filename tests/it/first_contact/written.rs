//! What `init --example` and `policy add` write, what they ask for it, and when they write nothing.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CIRCLECI, authority, init, policy_of};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::once::{Outcome, snapshot};
use crate::support::process::{command, machine_id, read, run};

const GITHUB: &str = "github:octo-org/app@main";

fn add(data: &Path, args: &[&str], platform: Option<&Issuer>) -> Outcome {
    let data = data.display().to_string();
    Outcome::of(&authority(&[&["policy", "add", "--data-dir", &data], args].concat(), platform))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every kind, with the platform's answer and without.
#[test]
fn each_passes_every_lint() {
    let folder = TempDir::new().unwrap();
    let asked = Issuer::start();
    for (what, api) in [
        (GITHUB, json!({"id": 7, "full_name": "octo-org/app", "default_branch": "trunk"})),
        (
            "gitlab:octo-group/app",
            json!({"id": 7, "path_with_namespace": "octo-group/app", "default_branch": "trunk"}),
        ),
        (
            "gitlab:gitlab.com/octo.group/sub/app@it's",
            json!({"id": 7, "path_with_namespace": "octo.group/sub/app"}),
        ),
        (
            CIRCLECI,
            json!({"id": "a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21", "vcs_info": {"vcs_url": "//circleci.com/x/y"}}),
        ),
        ("token:build-workers", json!({})),
    ] {
        asked.fail(Endpoint::Other, Fault::Body(api.to_string()));
        for platform in [None, Some(&asked)] {
            let text = policy_of(&[what], platform);
            let file = folder.path().join("p.yaml");
            std::fs::write(&file, &text).unwrap();
            let checked = run(machine_id(["authority", "check", "--deny-lints"]).arg(&file));
            assert!(checked.status.success(), "{what}: {}\n{text}", String::from_utf8_lossy(&checked.stdout));
            let is_silenced = text.contains("allow_lints: [mutable-names]");
            let has_id = text.contains("repository_id: '7'") || text.contains("project_id: '7'");
            let names_it = what.starts_with("github") || what.starts_with("gitlab");
            assert_eq!(
                (is_silenced, has_id),
                (names_it && platform.is_none(), names_it && platform.is_some()),
                "{text}"
            );
        }
    }
}

/// What the platform is asked, and what of its answer is believed.
#[test]
fn an_id_is_looked_up() {
    let platform = Issuer::start();
    let answer = |body: Value| platform.fail(Endpoint::Other, Fault::Body(body.to_string()));
    answer(
        json!({"id": 740_074, "full_name": "octo-org/App", "default_branch": "trunk", "owner": {"id": 65}}),
    );
    let text = policy_of(&["github:Octo-Org/app"], Some(&platform));
    for part in ["repository: octo-org/App", "repository_id: '740074'", "ref: refs/heads/trunk\n"] {
        assert!(text.contains(part), "{text}");
    }
    let asked = platform.requests().pop().unwrap();
    assert_eq!((asked.host.as_str(), asked.target.as_str()), ("api.github.com", "/repos/Octo-Org/app"));
    assert_eq!(asked.header("authorization"), None);
    // What is no answer about it, or would be more than text in the policy.
    for (body, branch) in [
        (json!({"id": 7, "full_name": "evil/app"}), "main"),
        (json!({"id": "7", "full_name": "octo-org/app"}), "main"),
        (json!({"id": 7.5, "full_name": "octo-org/app"}), "main"),
        (json!({"id": 7}), "main"),
        (json!([]), "main"),
        (json!({"id": 7, "full_name": "octo-org/app", "default_branch": "*"}), "main"),
        (
            json!({"id": 7, "full_name": "octo-org/app", "default_branch": "x\n      - repository_owner: evil"}),
            "main",
        ),
        (json!({"id": 7, "full_name": "octo-org/app", "default_branch": "a'b"}), "a''b"),
    ] {
        answer(body.clone());
        let text = policy_of(&["github:octo-org/app"], Some(&platform));
        assert!(!text.contains("evil") && text.contains(&format!("refs/heads/{branch}")), "{body}: {text}");
        assert_eq!(text.matches("- repository").count(), 2, "{text}");
        let is_believed = body["id"] == 7 && body["full_name"] == "octo-org/app";
        assert_eq!(text.contains("repository_id: '7'"), is_believed, "{body}: {text}");
    }
    // No answer: the file says how the id is found.
    for (fault, why) in [
        (Fault::Status(404), "it is not there, or not for everybody to see"),
        (Fault::Status(403), "it does not say without a login, or was asked too often"),
        (Fault::Redirect("https://circleci.com/".to_owned()), "it has another name there by now"),
        (Fault::Status(500), "status 500"),
        (Fault::Body("<html>".to_owned()), "the answer is not JSON"),
        (Fault::Huge(1 << 20), "the answer is longer than 262144 bytes"),
        (Fault::Hang, "no answer within 5 seconds"),
    ] {
        platform.fail(Endpoint::Other, fault);
        let folder = TempDir::new().unwrap();
        let (data, made) = init(folder.path(), &["--example", GITHUB, "--login", "deploy"], Some(&platform));
        made.good().says(&[
            &format!("note: api.github.com: {why}"),
            "silences `mutable-names` until you write an id",
        ]);
        let text = read(data.join("policy/github-app.yaml"));
        assert!(
            text.contains("# repository_id: 'ID'  # as `gh api repos/octo-org/app --jq .id` prints it"),
            "{text}"
        );
    }
}

/// Whose commits a project of CircleCI builds: named, or said by CircleCI, or left open and told.
#[test]
fn where_commits_come_from_is_bound_or_told() {
    let folder = TempDir::new().unwrap();
    let open = "note: the rule lets in forks' jobs too where the project passes secrets to them";
    let platform = Issuer::start();
    let project = "a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21";
    let api =
        |id: &str, url: &str| json!({"id": id, "vcs_info": {"vcs_url": url, "default_branch": "trunk"}});
    let named = format!("{CIRCLECI}/github.com/octo-org/app@trunk");
    for (what, answer, is_bound) in [
        (CIRCLECI, None, false),
        (named.as_str(), None, true),
        (CIRCLECI, Some(api(project, "https://github.com/octo-org/app")), true),
        (CIRCLECI, Some(api(project, "https://github.com/octo-org/*")), false),
        (
            CIRCLECI,
            Some(api("b7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21", "https://github.com/octo-org/app")),
            false,
        ),
    ] {
        let asked = answer.is_some();
        platform.fail(Endpoint::Other, Fault::Body(answer.unwrap_or_default().to_string()));
        let (data, made) =
            init(folder.path(), &["--example", what, "--login", "deploy"], asked.then_some(&platform));
        let made = made.good();
        let policy = data.join("policy");
        let text = read(policy.join(&names(&policy)[0]));
        assert_eq!(made.stderr.contains(open), !is_bound, "{}", made.stderr);
        assert_eq!(text.contains("\n        vcs_origin: github.com/octo-org/app "), is_bound, "{text}");
        std::fs::remove_dir_all(data).unwrap();
    }
    assert!(platform.requests().iter().all(|asked| asked.host == "circleci.com"));
}

/// The next commands stand on stdout, one a line, and can be typed as they are.
#[test]
fn init_says_what_comes_next() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("it's here");
    std::fs::create_dir(&place).unwrap();
    for (args, wanted) in [
        (&[][..], &["policy add", "doctor", "serve", "export"][..]),
        (&["--example", GITHUB, "--login", "deploy"], &["doctor", "serve", "export"]),
        (&["--example", "token:w", "--login", "deploy"], &["doctor", "serve", "export", "token add"]),
        (&["--store", "postgres://u@db.test/d"], &["upgrade", "policy add", "doctor", "serve", "export"]),
    ] {
        let (data, made) = init(&place, args, None);
        let made = made.good();
        made.says(&[&format!("created {}", data.display()), "next:\n"]);
        let lines: Vec<&str> = made.stdout.lines().collect();
        assert_eq!(lines.len(), wanted.len(), "{lines:?}");
        let quoted = format!(" --data-dir '{}'", data.display().to_string().replace('\'', r"'\''"));
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(line.contains(&format!("machine-id authority {wanted}{quoted}")), "{line}");
        }
        if args.len() == 4 {
            let exported =
                run(command("sh").args(["-c", lines.iter().find(|line| line.contains(" export ")).unwrap()]));
            assert!(exported.stdout.starts_with(b"sha256:"), "{exported:?}");
        }
        std::fs::remove_dir_all(data).unwrap();
    }
}

#[test]
fn init_says_the_same_to_programs() {
    let folder = TempDir::new().unwrap();
    let (data, made) =
        init(folder.path(), &["--example", GITHUB, "--login", "deploy", "--format", "json"], None);
    let json: Value = serde_json::from_str(&made.good().stdout).unwrap();
    assert_eq!(json["data_dir"], data.display().to_string());
    assert_eq!(json["join_token"], "github-app");
    let next: Vec<&str> =
        json["next"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(
        next.len() == 3 && next[1].ends_with(&format!(" authority serve --data-dir {}", data.display())),
        "{next:?}"
    );
}

/// What is malformed, or would open more than it should, makes nothing.
#[test]
fn nothing_is_made_of_what_is_malformed() {
    let folder = TempDir::new().unwrap();
    for (what, more, said) in [
        ("github:octo-org", &[][..], "`github:octo-org`: it must be OWNER/REPO or OWNER/REPO@BRANCH"),
        ("github:octo-org/*", &[], "it must be OWNER/REPO"),
        ("github:octo-org/app@*", &[], "`*` is not the name of a branch"),
        ("github:octo-org/app@a\nb", &[], "is not the name of a branch"),
        (
            "github:octo-org/app",
            &["--workflow", "*.yml"],
            "`--workflow` must be a file of .github/workflows/",
        ),
        ("gitlab:app", &[], "it must be GROUP/PROJECT or HOST/GROUP/PROJECT"),
        (
            "gitlab:octo-group/app",
            &["--workflow", "a*"],
            "`--workflow` must be the file of the project's pipelines",
        ),
        ("circleci:octo-org/app", &[], "it must be ORG_ID/PROJECT_ID"),
        (CIRCLECI, &["--workflow", "x"], "`--workflow` must be the id of a pipeline definition"),
        ("token:Build", &[], "it must be a name"),
        ("token:w", &["--workflow", "x"], "workers have no workflow"),
        ("githb:octo-org/app", &[], "there is no example of the kind `githb`\nhint: did you mean `github`?"),
        ("kubernetes:x", &[], "there is no example of the kind `kubernetes`\nhint: there are: "),
        ("octo-org/app", &[], "there is no example of the kind `octo-org/app`"),
        ("", &[], "there is no example of the kind ``"),
    ] {
        let args = [&["--example", what, "--login", "deploy"], more].concat();
        let (data, made) = init(folder.path(), &args, None);
        made.failed(2).says(&[said]);
        assert!(!data.exists(), "{what}");
    }
    for (login, said) in [
        ("-x", "`--login`: `-x` cannot be a login"),
        ("a b", "cannot be a login"),
        ("{{internal.logins}}", "cannot be a login"),
        ("", "cannot be a login"),
        ("root", "this is not written: role `github-app` logs in as root on every host [root-login]"),
    ] {
        let login = format!("--login={login}");
        let (data, made) = init(folder.path(), &["--example", GITHUB, &login], None);
        made.failed(2).says(&[said]);
        assert!(!data.exists(), "{login}");
    }
    for args in [&["--example", GITHUB][..], &["--login", "deploy"], &["--workflow", "x.yml"]] {
        let (data, made) = init(folder.path(), args, None);
        made.failed(2);
        assert!(!data.exists());
    }
    // A policy that somebody has put there is not for `init` to add to.
    std::fs::create_dir_all(folder.path().join("data/policy")).unwrap();
    let (data, made) = init(folder.path(), &["--example", GITHUB, "--login", "deploy"], None);
    made.failed(2).says(&["which `--example` does not add to", "policy add"]);
    assert_eq!(names(&data), ["policy"]);
}

#[test]
fn policy_add_writes_one_file_and_nothing_twice() {
    let folder = TempDir::new().unwrap();
    let (data, made) = init(folder.path(), &[], None);
    made.good();
    let policy = data.join("policy");
    let first = add(&data, &[GITHUB, "--login", "deploy"], None).good();
    assert!(
        first
            .stdout
            .starts_with(&format!("wrote {}/github-app.yaml: join token `github-app` ", policy.display()))
    );
    let before = snapshot(&policy);
    // With the id that is known by now, too: the rule is there.
    let platform = Issuer::start();
    platform.fail(Endpoint::Other, Fault::Body(json!({"id": 7, "full_name": "octo-org/app"}).to_string()));
    for platform in [None, Some(&platform)] {
        let again = add(&data, &[GITHUB, "--login", "deploy"], platform).good();
        assert!(again.stdout.contains("already: nothing was written"), "{}", again.stdout);
        assert_eq!(snapshot(&policy), before);
    }
    // Somebody who narrows the role, or renames the file, has not taken the rule away.
    let text = read(policy.join("github-app.yaml")).replace("{'*': '*'}", "{env: prod}");
    std::fs::write(policy.join("a.yaml"), text).unwrap();
    std::fs::remove_file(policy.join("github-app.yaml")).unwrap();
    assert!(add(&data, &[GITHUB, "--login", "deploy"], None).good().stdout.contains("nothing was written"));
    // Another login, branch, workflow or owner is another rule.
    for (args, file) in [
        (&[GITHUB, "--login", "release"][..], "github-app-2.yaml"),
        (&["github:octo-org/app@dev", "--login", "deploy"], "github-app-3.yaml"),
        (&[GITHUB, "--login", "deploy", "--workflow", "x.yml"], "github-app-4.yaml"),
        (&["github:your-org/app@main", "--login", "deploy"], "github-app-5.yaml"),
        (&["token:workers", "--login", "deploy"], "workers.yaml"),
        (&["gitlab:octo-group/app", "--login", "deploy"], "gitlab-app.yaml"),
        (&["gitlab:git.example.com/octo-group/app", "--login", "deploy"], "gitlab-app-2.yaml"),
    ] {
        let added = add(&data, args, None).good();
        assert!(added.stdout.contains(&format!("{file}: ")), "{}", added.stdout);
        let added = add(&data, args, None).good();
        assert!(added.stdout.contains("nothing was written"), "{}", added.stdout);
    }
    let json = add(
        &data,
        &[
            "circleci:3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21/github.com/octo-org/app",
            "--login",
            "deploy",
            "--format",
            "json",
        ],
        None,
    );
    let json: Value = serde_json::from_str(&json.good().stdout).unwrap();
    assert_eq!((&json["added"], &json["join_token"]), (&true.into(), &"circleci-app".into()));
    assert!(json["file"].as_str().unwrap().ends_with("/circleci-app.yaml") && json["notes"][0].is_string());
    let json = add(&data, &["token:workers", "--login", "deploy", "--format", "json"], None).good().stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        json!({"added": false, "join_token": "workers"})
    );
    // That name is what it is called by, and another has it.
    add(&data, &["token:workers", "--login", "other"], None)
        .failed(2)
        .says(&["the policy has a `workers` already, which is another"]);
    let place = data.display().to_string();
    let checked = authority(&["check", "--data-dir", &place, "--deny-lints"], None);
    assert!(checked.status.success(), "{checked:?}");
}

/// Two that would have one name: neither is lost, and what is there loads.
#[test]
fn policies_that_are_added_at_once_are_all_there_or_told_of() {
    let folder = TempDir::new().unwrap();
    let (data, made) = init(folder.path(), &["--example", "token:w", "--login", "deploy"], None);
    made.good();
    let owners = ["a", "b", "c", "d"].map(|owner| format!("github:{owner}/app@main"));
    let added: Vec<Outcome> = std::thread::scope(|scope| {
        let all =
            owners.each_ref().map(|what| scope.spawn(|| add(&data, &[what, "--login", "deploy"], None)));
        all.map(|one| one.join().unwrap()).into()
    });
    let there = names(&data.join("policy"));
    for (outcome, what) in added.iter().zip(&owners) {
        let is_written = there.iter().any(|name| read(data.join("policy").join(name)).contains(what));
        match outcome.code {
            0 => assert!(is_written, "{outcome:?}"),
            _ => outcome.clone().failed(2).says(&["somebody has just written it: run this again"]),
        }
    }
    let place = data.display().to_string();
    let checked = authority(&["check", "--data-dir", &place, "--deny-lints"], None);
    assert!(checked.status.success(), "{checked:?}");
}

/// Root's commands run beside an authority with a user of its own, who must be able to read the file.
#[test]
fn what_root_adds_is_the_authoritys() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (data, made) = init(folder.path(), &[], None);
    made.good();
    let changed = run(command("chown").args(["-R", "65534:65534"]).arg(&data));
    assert!(changed.status.success());
    add(&data, &[GITHUB, "--login", "deploy"], None).good();
    let file = std::fs::metadata(data.join("policy/github-app.yaml")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (65534, 0o600));
}

#[test]
fn policy_add_writes_nothing_where_that_would_not_count() {
    let folder = TempDir::new().unwrap();
    let (data, made) = init(folder.path(), &["--example", GITHUB, "--login", "deploy"], None);
    made.good();
    let policy = data.join("policy");
    let args = ["gitlab:octo-group/app", "--login", "deploy"];
    let refused = |said: &str| {
        let before = snapshot(&policy);
        add(&data, &args, None).failed(2).says(&[said]);
        assert_eq!(snapshot(&policy), before);
    };
    std::fs::write(policy.join("bad.yaml"), "kind: bto\n").unwrap();
    refused("bad.yaml:1:7: there is no kind of resource `bto`");
    std::fs::remove_file(policy.join("bad.yaml")).unwrap();
    std::fs::write(policy.join("policy.sha256"), "").unwrap();
    refused("policy has a policy.sha256, which would not list the new file");
    std::fs::remove_file(policy.join("policy.sha256")).unwrap();
    for words in ["github:octo-org/app@*", "github:*/*"] {
        add(&data, &[words, "--login", "deploy"], None).failed(2);
    }
    add(&data, &[GITHUB, "--login", "root"], None).failed(2).says(&["[root-login]"]);
    assert_eq!(names(&policy), ["github-app.yaml"]);
    let config = read(data.join("authority.yaml"));
    std::fs::write(
        data.join("authority.yaml"),
        config.replace("policy: policy", "policy: policy/github-app.yaml"),
    )
    .unwrap();
    refused("is one file, and no folder that takes another");
    add(&folder.path().join("gone"), &args, None).failed(2).says(&["authority init"]);
}
