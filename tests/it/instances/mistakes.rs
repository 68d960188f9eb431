//! What is set up wrong, and is told before anybody is asked.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::once::{World, copy};
use crate::support::process::{read, succeed};
use crate::support::workers::{POLICY, SECRET, instances, registered, secret, worker};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_storage_that_others_could_have_touched_is_refused() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let make = |name: &str, change: &dyn Fn(&Path)| {
        copy(&job.path("storage"), &job.path(name));
        change(&job.path(name));
        job.text_path(name)
    };
    symlink(job.path("storage"), job.path("link")).unwrap();
    std::fs::write(job.path("file"), "").unwrap();
    let state =
        |text: &'static str| move |path: &Path| std::fs::write(path.join("state.json"), text).unwrap();
    for (storage, says) in [
        (job.text_path("link"), "it is not a directory, or a symbolic link"),
        (job.text_path("file"), "not a directory"),
        (job.text_path("none/storage"), "the directory above it"),
        (make("open", &|path| mode(path, 0o755)), "others can look into it (mode 755)"),
        (make("read", &|path| mode(&path.join("state.json"), 0o640)), "others can read it (mode 640)"),
        (make("broken", &state("{")), "it cannot be read (line 1, column 1)"),
        (make("empty", &state("")), "it cannot be read"),
        (
            make(
                "newer",
                &state(r#"{"version":2,"authority":"a","token":"t","current":null,"next":null,"spent":[]}"#),
            ),
            "it is of version 2",
        ),
        (
            make("linked", &|path| {
                std::fs::rename(path.join("state.json"), path.join("elsewhere")).unwrap();
                symlink(path.join("elsewhere"), path.join("state.json")).unwrap();
            }),
            "it is a symbolic link",
        ),
        (
            make("other-key", &|path| {
                let text = read(path.join("state.json"));
                let mut state: Value = serde_json::from_str(&text).unwrap();
                state["current"]["key"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
                std::fs::write(path.join("state.json"), state.to_string()).unwrap();
            }),
            "an instance in it is broken",
        ),
    ] {
        let refused = job.once(["--storage", &storage]).failed(2);
        refused.says(&[says]);
    }
    let above = job.path("shared");
    std::fs::create_dir(&above).unwrap();
    mode(&above, 0o777);
    let below = job.text_path("shared/storage");
    job.once(["--storage", &below]).failed(2).says(&["can be written to by everybody"]);
    // None of it was a join.
    job.once([]).good();
    assert_eq!(instances(&authority)[0]["generation"], 2);
    assert!(instances(&authority)[0]["locked"] == false);
}

#[test]
fn a_storage_is_of_one_authority_and_join_token() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let told = job.once(["--token", "agents"]).failed(2);
    told.says(&["is of a worker of the join token jenkins, not of agents", "a --storage of its own"]);
    let other = Authority::start(POLICY);
    let ca = other.ca_file().display().to_string();
    let told = job.once(["--authority", &other.url(), "--ca-file", &ca]).failed(2);
    told.says(&["is of a worker of the authority", "a --storage of its own"]);
    job.once([]).good();
}

#[test]
fn a_storage_is_no_destination() {
    let authority = Authority::start(POLICY);
    let job = worker(&authority).env(SECRET, secret(&authority));
    let (storage, inside, around) =
        (job.text_path("storage"), job.text_path("storage/out"), job.text_path(""));
    for destination in [&storage, &inside, &around, &format!("{storage}/.")] {
        let refused = job.once(["--destination", destination]).failed(2);
        refused.says(&["are not apart from each other", "a directory of its own"]);
    }
    let out = job.text_path("storage-out");
    job.once(["--destination", &out]).good();
    assert_eq!(instances(&authority).len(), 1);
}

#[test]
fn a_storage_is_for_methods_that_keep_one() {
    let authority = Authority::start(POLICY);
    let job = worker(&authority).without("MACHINE_ID_STORAGE");
    job.once([]).failed(2).says(&[
        "the join method `token` needs a storage",
        "--storage DIR",
        "MACHINE_ID_STORAGE",
    ]);
    job.once(["--id-token-env", "X"]).failed(2).says(&["--storage"]);
    // In the file of --config as well.
    let config = format!("version: v1\nstorage: {}\n", job.text_path("storage"));
    std::fs::write(job.path("config.yaml"), config).unwrap();
    let config = job.text_path("config.yaml");
    let job = job.env("MACHINE_ID_CONFIG", config).env(SECRET, secret(&authority));
    job.once([]).good();
    assert!(job.path("storage/state.json").is_file());

    let world = World::start();
    let github = world.github().env("MACHINE_ID_STORAGE", "/nonexistent/x").env(SECRET, "unused");
    github.once(["-v"]).good().says(&["no storage is used: the join method `github` keeps nothing"]);
    for option in ["--storage", "--registration-secret-file"] {
        let refused = github.once([option, "x"]).failed(2);
        refused.says(&[option, "the join method `github` keeps nothing between runs"]);
    }
}

#[test]
fn secrets_are_for_join_tokens_whose_workers_register() {
    let world = World::with_policy(|policy| {
        format!(
            "{policy}---\n{}",
            POLICY.split_once("---\nkind: token").map(|(_, rest)| format!("kind: token{rest}")).unwrap()
        )
    });
    let add = |args: [&str; 4]| {
        let output = world.authority.run(["token", "add", args[0], args[1], args[2], args[3]]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, says) in [
        (["--token", "github-deploy", "--ttl", "1h"], "is of method `github`, whose jobs do not register"),
        (["--token", "jenkin", "--ttl", "1h"], "did you mean `jenkins`?"),
        (["--token", "jenkins", "--ttl", "0s"], "`--ttl`: must be longer than zero"),
        (["--token", "jenkins", "--ttl", "31d"], "`--ttl` is longer than 30 days"),
        (["--token", "jenkins", "--ttl", "soon"], "`--ttl`: `soon` is not a duration"),
    ] {
        let (code, stderr) = add(args);
        assert!(code == Some(2) && stderr.contains(says), "{args:?}: {code:?} {stderr}");
    }
    let page = succeed(&mut world.authority.command(["token", "add", "--token", "jenkins"]));
    let secret = page.lines().find(|line| line.starts_with("    mid-reg-")).unwrap().trim();
    for part in [
        &format!("MACHINE_ID_REGISTRATION_SECRET={secret}"),
        &format!("--authority {}", world.authority.url()),
        "--ca-pin sha256:",
        "--join-method token --token jenkins --storage DIR",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    // Shown once: neither the store nor the trail has it.
    let data = world.authority.data_dir();
    for file in ["authority.db", "authority.db-wal"] {
        let bytes = std::fs::read(data.join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
    let added = world.authority.audit().into_iter().find(|event| event["event"] == "secret_added").unwrap();
    assert_eq!((&added["token"], &added["bot"]), (&json!("jenkins"), &json!("deployer")));
    assert!(!added.to_string().contains("mid-reg-"));
}

#[test]
fn check_and_explain_know_what_they_do_not_judge() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let claims = json!({
        "iss": "w-00000000000000000000000000000000", "sub": "w-00000000000000000000000000000000",
        "jti": "x", "generation": 1, "attempt": "x", "tries": 0, "earlier": [],
    });
    std::fs::write(job.path("claims.json"), claims.to_string()).unwrap();
    let file = job.text_path("claims.json");
    let page = succeed(&mut authority.command(["check", "--token", "jenkins", "--claims", &file]));
    for part in [
        "allowed: the job would be bot `deployer`",
        "nor whether such a worker is registered, and not locked",
    ] {
        assert!(page.contains(part), "{page}");
    }
    copy(&job.path("storage"), &job.path("copy"));
    job.once([]).good();
    let refused = job.once(["--storage", &job.text_path("copy")]).failed(4);
    let id = refused.stderr.split_once("denial d-").unwrap().1.split(':').next().unwrap();
    let page = succeed(&mut authority.command(["explain", &format!("d-{id}")]));
    for part in ["instance_locked", "presents an old generation", "generation: 1", "claims, verified"] {
        assert!(page.contains(part), "no {part} in {page}");
    }
}
