use clap::Parser;

use super::*;
use crate::error::Kind;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn settings(line: &str, env: &[(&str, &str)]) -> Result<Settings> {
    let words = std::iter::once("once").chain(line.split_whitespace());
    let mut all = vec![
        ("MACHINE_ID_AUTHORITY", "https://env.example.com"),
        ("MACHINE_ID_TOKEN", "t"),
        ("GITHUB_ACTIONS", "true"),
    ];
    all.extend(env);
    Settings::new(Cli::try_parse_from(words).unwrap().args, &Environment::from_pairs(all))
}

fn usage(line: &str, env: &[(&str, &str)]) -> String {
    let error = settings(line, env).err().unwrap_or_else(|| panic!("{line} is taken"));
    assert_eq!(error.kind(), Kind::Usage, "{line}");
    format!("{error} {:?}", error.hints())
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "version: v1\nauthority: https://file.example.com\nttl: 20m\nca_file: /f.pem\ndestination: /f\noutputs: [{type: ssh}]\n",
    )
    .unwrap();
    let config = file.path().to_str().unwrap();
    let plain = settings("", &[("MACHINE_ID_CONFIG", config)]).unwrap();
    assert_eq!(plain.authority, "https://env.example.com");
    assert_eq!(plain.ttl_seconds, 1200);
    assert_eq!(plain.destinations[0].path, Path::new("/f"));
    assert_eq!(plain.destinations[0].outputs[0].kind.declaration.name, "ssh");
    assert_eq!(plain.trust.ca_file.as_deref(), Some(Path::new("/f.pem")));
    let flags = "--authority https://flag.example.com/ --ttl 5m --destination /g --output identity --ca-pin sha256:00";
    let flagged = settings(
        &format!("--config {config} {flags}"),
        &[("MACHINE_ID_TTL", "7m"), ("MACHINE_ID_CA_FILE", "/e")],
    )
    .unwrap();
    assert_eq!((flagged.authority.as_str(), flagged.ttl_seconds), ("https://flag.example.com", 300));
    assert_eq!(flagged.destinations[0].outputs[0].kind.declaration.name, "identity");
    assert!(flagged.trust.ca_file.is_none() && flagged.trust.ca_pin.is_some());
    assert_eq!(settings("", &[("MACHINE_ID_TTL", "7m")]).unwrap().ttl_seconds, 420);
}

#[test]
fn key_types_are_named() {
    assert_eq!(settings("", &[]).unwrap().key_type, None);
    let env = [("MACHINE_ID_KEY_TYPE", "ecdsa-p384")];
    assert_eq!(settings("", &env).unwrap().key_type, Some(KeyType::EcdsaP384));
    let flagged = settings("--key-type ecdsa-p256", &env).unwrap();
    assert_eq!(flagged.key_type, Some(KeyType::EcdsaP256));
    let error = settings("--key-type ed2551", &[]).err().unwrap();
    assert_eq!(error.to_string(), "there is no key type `ed2551`");
    assert!(error.hints()[0].contains("did you mean `ed25519`"), "{:?}", error.hints());
}

#[test]
fn what_is_missing_is_named_with_flag_and_variable() {
    let bare = |env: &[(&str, &str)], line: &str| {
        let words = std::iter::once("once").chain(line.split_whitespace());
        let args = Cli::try_parse_from(words).unwrap().args;
        let error = Settings::new(args, &Environment::from_pairs(env.iter().copied())).err().unwrap();
        format!("{error} {:?}", error.hints())
    };
    let text = bare(&[], "");
    assert!(text.contains("--authority") && text.contains("MACHINE_ID_AUTHORITY"), "{text}");
    let text = bare(&[], "--authority https://a --token t");
    assert!(text.contains("--join-method") && text.contains("github, circleci"), "{text}");
    let text = bare(&[("CIRCLECI", "true")], "--authority https://a");
    assert!(text.contains("--token") && text.contains("MACHINE_ID_TOKEN"), "{text}");
}

#[test]
fn a_destination_that_is_left_alone_is_so_by_whichever_way_it_was_named() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (config, earlier) = (path("once.yaml"), path("d"));
    std::fs::create_dir(&earlier).unwrap();
    let mut manifest = crate::destination::manifest::tests::manifest(&["key"]);
    manifest.authority = "https://env.example.com".into();
    let mut at = |destination: &str, expires_at: &str, line: &str| {
        manifest.expires_at = expires_at.into();
        std::fs::write(Path::new(&earlier).join("manifest.json"), manifest.to_json()).unwrap();
        std::fs::write(&config, format!("version: v1\ndestination: {destination}\n")).unwrap();
        let env = [
            ("MACHINE_ID_CONFIG", config.as_str()),
            ("MACHINE_ID_DESTINATION", &earlier),
            ("MACHINE_ID_EXPIRES_AT", "2099-01-01T00:00:00Z"),
            ("TMPDIR", temp.path().to_str().unwrap()),
        ];
        let settings = settings(line, &env).unwrap();
        (settings.destinations[0].path.to_str().unwrap().to_owned(), settings.earlier)
    };
    let (soon, over) = ("2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z");
    let (own, before) = at(&earlier, soon, "--output ssh");
    assert!(own != earlier && before.as_ref() == Some(&earlier));
    assert_eq!(at(&path("x"), soon, "--output ssh").0, path("x"));
    // What has ended, and what is the same, is replaced.
    assert_eq!(at(&earlier, over, "--output ssh"), (earlier.clone(), None));
    assert_eq!(at(&earlier, soon, ""), (earlier.clone(), None));
    for other in ["--token other", "--authority https://x", "--output identity,name=x", "--role r"] {
        assert_ne!(at(&earlier, soon, other).0, earlier, "{other}");
    }
    // COMMAND's would be taken away.
    let (own, before) = at(&earlier, over, "-- true");
    assert!(own != earlier && before.is_none());
}

#[test]
fn outputs_and_roles() {
    let both =
        settings("--output identity,roles=a+b --output ssh,name=git --role c --destination /d", &[]).unwrap();
    assert_eq!(both.destinations.len(), 1);
    let outputs = &both.destinations[0].outputs;
    assert_eq!((outputs[0].roles.join(" "), outputs[1].roles.join(" ")), ("a b".into(), "c".into()));
    assert_eq!(both.destinations[0].folder(&outputs[1]), "git");
    let apart = settings("--output ssh,destination=/own --output identity --destination /d", &[]).unwrap();
    assert_eq!(apart.destinations[0].path, Path::new("/d"), "the common destination stands first");
    assert_eq!(apart.destinations[1].folder(&apart.destinations[1].outputs[0]), "");
    for (line, says) in [
        ("--output identiy", "did you mean `identity`"),
        ("--output databas", "did you mean `database`"),
        ("--output database", "needs `service=…`"),
        ("--output ssh,rols=a", "did you mean `roles`"),
        ("--output ssh,name=A/B", "cannot be the name"),
        ("--output ssh,name=manifest.json", "cannot be the name"),
        ("--output ssh,name", "not KEY=VALUE"),
        ("--output ssh,name=", "no value"),
        ("--output ssh,name=a,name=b", "twice"),
        ("--output ssh,roles=a++b", "name of a role"),
        ("--output ssh --output ssh", "two outputs"),
    ] {
        let text = usage(line, &[]);
        assert!(text.contains(says), "{line}: {text}");
    }
}

#[test]
fn outputs_are_at_leaves_as_each_says_or_all_of_the_run() {
    let places = |line: &str| {
        let settings = settings(&format!("--destination /d {line}"), &[]).unwrap();
        let outputs = settings.outputs().map(|it| format!("{} {}", it.name, it.at.as_deref().unwrap_or("-")));
        (outputs.collect::<Vec<_>>(), settings.leaves_asked().join(" "), settings.require_all)
    };
    let at = "--output ssh --output ssh,at=b.test --output ssh,at=b.test,name=x --output identity,at=a.test";
    let (outputs, leaves, all) = places(at);
    assert_eq!(outputs, ["ssh -", "ssh-b.test b.test", "x b.test", "identity-a.test a.test"]);
    assert_eq!((leaves.as_str(), all), ("b.test a.test", false));
    let (outputs, leaves, all) = places(&format!("--at c.test --require-all {at}"));
    assert_eq!(outputs[0], "ssh-c.test c.test");
    assert_eq!((leaves.as_str(), all), ("c.test b.test a.test", true));
    assert_eq!(places("--at c.test").0, ["identity-c.test c.test"]);
    let long = format!("--output identity,at={}", "a".repeat(60));
    for (line, says) in [
        ("--output ssh,at=A.test", "cannot be the name of a leaf cluster"),
        ("--at a/b", "cannot be the name of a leaf cluster"),
        ("--output ssh,at=", "`at` has no value"),
        ("--output ssh,name=ssh_config", "cannot be the name of an output"),
        (&long, "give it another with name=…"),
        ("--at a.test --output ssh,roles=a --output identity,roles=b", "ask for different roles"),
    ] {
        let text = usage(line, &[]);
        assert!(text.contains(says), "{line}: {text}");
    }
    settings("--at a.test --output ssh,roles=a --output identity,roles=a --output ssh,at=b.test,name=y", &[])
        .unwrap();
}

#[test]
fn leaves_are_pinned_by_the_file_alone() {
    let pinned = |leaves: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("version: v1\nleaves: [{leaves}]\n")).unwrap();
        settings(&format!("--config {} --destination /d", file.path().display()), &[])
    };
    let good = pinned("{name: a.test, url: 'https://A.test/', hosts: ['*.a.test']}").unwrap();
    assert_eq!(good.leaves[0].url, "https://a.test", "in its one form");
    for (leaves, says) in [
        ("{name: A, url: https://a}", "a name that no cluster can have"),
        ("{name: a, url: http://a}", "not an authority's"),
        ("{name: a, url: https://a, ca_pin: x}", "`ca_pin` that is none"),
        ("{name: a, url: https://a, hosts: ['*.test']}", "neither a name in lower case nor"),
        ("{name: a, url: https://a}, {name: a, url: https://b}", "`a` is there twice"),
        (
            "{name: a, url: https://a, hosts: [x.b.c]}, {name: b, url: https://b, hosts: ['*.b.c']}",
            "both have the host x.b.c",
        ),
    ] {
        let error = pinned(leaves).err().unwrap();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(says), "{leaves}: {error}");
    }
}

#[test]
fn times_are_checked() {
    for (line, says) in [
        ("--ttl 9s", "at least 10s"),
        ("--ttl 0s", "longer than zero"),
        ("--ttl=-5m", "not a duration"),
        ("--ttl soon", "not a duration"),
        ("--timeout 0s", "longer than zero"),
        ("--timeout 48h", "at most 24h"),
    ] {
        let text = usage(line, &[]);
        assert!(text.contains(says), "{line}: {text}");
    }
}

#[test]
fn destinations_are_absolute_and_quotable() {
    let settings_of =
        |line: &str, env: &[(&str, &str)]| settings(line, env).unwrap().destinations[0].path.clone();
    assert_eq!(settings_of("--destination /a/./b/", &[]), Path::new("/a/b"));
    assert!(settings_of("--destination rel", &[]).is_absolute());
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path().to_str().unwrap();
    let default = settings_of("", &[("RUNNER_TEMP", here)]);
    assert_eq!(default.parent(), Some(temp.path()));
    let elsewhere = settings_of("", &[("RUNNER_TEMP", "/not/mounted"), ("XDG_RUNTIME_DIR", here)]);
    assert_eq!(elsewhere.parent(), Some(temp.path()));
    for bad in ["/", "/a/..", "/a\"b", "/${HOME}"] {
        usage(&format!("--destination {bad}"), &[]);
    }
}

#[test]
fn a_command_does_not_take_what_an_earlier_once_left() {
    let temp = tempfile::tempdir().unwrap();
    let (earlier, free) = (temp.path().join("earlier"), temp.path().join("free"));
    std::fs::create_dir(&earlier).unwrap();
    let there = crate::destination::manifest::tests::manifest(&["key"]).to_json();
    std::fs::write(earlier.join("manifest.json"), there).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let path = |line: &str, variable: &Path| {
        let env = [("MACHINE_ID_DESTINATION", &text(variable)), ("RUNNER_TEMP", &text(temp.path()))];
        settings(line, &env.map(|(name, value)| (name, value.as_str()))).unwrap().destinations[0].path.clone()
    };
    assert_eq!(path("", &earlier), earlier, "without a command, it is reused");
    let new = path("-- true", &earlier);
    assert!(new.starts_with(temp.path()) && new != earlier, "{new:?}");
    assert_eq!(path("-- true", &free), free, "what names none of ours is asked for");
    assert_eq!(path(&format!("--destination {} -- true", text(&earlier)), &earlier), earlier);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "version: v1\ndestination: /f\n").unwrap();
    let with_file = format!("--config {} -- true", text(file.path()));
    assert_eq!(path(&with_file, &earlier), Path::new("/f"));
    assert_eq!(path(&with_file, &free), free);
}

#[test]
fn a_new_directory_is_made_only_where_nobody_else_can_replace_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let (open, fit) = (temp.path().join("open"), temp.path().join("fit"));
    for (path, mode) in [(&open, 0o777), (&fit, 0o755)] {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink(&open, fit.join("link")).unwrap();
    let (open, link, fit) = (open.to_str().unwrap(), fit.join("link"), fit.to_str().unwrap());
    let env = [("RUNNER_TEMP", open), ("XDG_RUNTIME_DIR", link.to_str().unwrap()), ("TMPDIR", fit)];
    let found = settings("", &env).unwrap();
    assert_eq!(found.destinations[0].path.parent(), Some(Path::new(fit)));
    assert_eq!(found.notes.len(), 2);
    assert!(found.notes[0].starts_with("not in RUNNER_TEMP ("), "{:?}", found.notes);
    assert!(found.notes[0].contains("by everybody"), "{:?}", found.notes);
}

#[test]
fn a_token_is_no_name() {
    let text = usage("--token eyJhbGciOiJSUzI1NiJ9.e30.c2ln", &[]);
    assert!(text.contains("--id-token-env") && !text.contains("c2ln"), "{text}");
}
