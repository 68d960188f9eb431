//! No private key, whole token or request secret anywhere but where it
//! belongs: everything that the binary says and keeps is searched for them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use machine_id::destination::material::File;
use machine_id::environment::Environment;
use machine_id::once::exchange::keys::{JobKeys, SshKey};
use machine_id::once::revoke::Revocable;
use machine_id::output::KeyKinds;
use machine_id::secret::Secret;
use machine_id::suite::KeyType;
use machine_id::wire::{ExchangeRequest, OutputResponse, Proof, RevokeRequest};

use crate::support::issuer::{Endpoint, Fault, REQUEST_TOKEN};
use crate::support::once::{Job, Outcome, TOLD, World, snapshot};
use crate::support::process::{read, succeed};
use crate::support::wait_for;

/// What was said or kept, by where.
#[derive(Default)]
struct Found(Vec<(String, Vec<u8>)>);

impl Found {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn run(&mut self, job: &Job, args: &[&str]) -> Outcome {
        let outcome = job.run(args);
        self.add(format!("stdout of {args:?}"), outcome.stdout.as_bytes());
        // A mask holds a signature alone, which `check` makes sure of.
        self.add(format!("stderr of {args:?}"), outcome.stderr.as_bytes());
        for file in TOLD {
            self.add(format!("{file} of {args:?}"), job.said(file));
        }
        outcome
    }

    /// Nothing of it holds any of these.
    fn check(&self, secrets: &[(String, Vec<u8>)]) {
        assert!(secrets.len() > 20 && self.0.len() > 50, "there is something to look for and in");
        let secrets: Vec<_> = secrets.iter().map(|(what, secret)| (what, latin(secret))).collect();
        for (place, bytes) in &self.0 {
            let text = latin(bytes);
            for (what, secret) in &secrets {
                assert!(secret.len() >= 12, "{what} is too short to look for");
                assert!(!text.contains(secret), "{place} holds {what}:\n{}", String::from_utf8_lossy(bytes));
            }
        }
    }
}

/// Bytes as characters: text is searched faster.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    latin(bytes).contains(&latin(part))
}

/// Every form of a secret that a program might let out.
fn forms(what: &str, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    [
        ("", bytes.to_vec()),
        (" in base64", STANDARD.encode(bytes).trim_end_matches('=').as_bytes().to_vec()),
        (" in base64url", URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
        (" in hex", hex.clone().into_bytes()),
        (" in upper-case hex", hex.to_uppercase().into_bytes()),
        (" as a list", list.trim_matches(['[', ']']).as_bytes().to_vec()),
    ]
    .map(|(form, bytes)| (format!("{what}{form}"), bytes))
    .into()
}

/// The private keys in a destination.
fn keys_of(destination: &Path) -> Vec<(String, Vec<u8>)> {
    let mut secrets = Vec::new();
    for (path, _) in
        snapshot(destination).iter().filter(|(path, _)| path.ends_with("key") || path.ends_with("tls.key"))
    {
        let text = read(path);
        let lines = text.lines().filter(|line| !line.starts_with("-----") && line.len() >= 12);
        secrets.extend(lines.map(|line| (format!("a line of {}", path.display()), line.as_bytes().to_vec())));
        if path.ends_with("key") {
            let key = ssh_key::PrivateKey::from_openssh(&text).unwrap();
            secrets
                .extend(forms("the SSH key's seed", &key.key_data().ed25519().unwrap().private.to_bytes()));
        } else {
            let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
            let der = STANDARD.decode(body).unwrap();
            secrets.extend(forms("the TLS key", &der));
            // PKCS#8 of P-256: the number stands at byte 36, 32 bytes long.
            secrets.extend(forms("the TLS key's number", der.get(36..68).unwrap()));
        }
    }
    assert!(!secrets.is_empty(), "no keys in {}", destination.display());
    secrets
}

/// A token: whole, and the part that is signed.
fn token_secrets(token: &str) -> Vec<(String, Vec<u8>)> {
    let (message, _) = token.rsplit_once('.').unwrap();
    let (_, payload) = message.split_once('.').unwrap();
    vec![("a token".into(), token.into()), ("a token's claims as sent".into(), payload.into())]
}

fn request_secrets() -> Vec<(String, Vec<u8>)> {
    let request = |text: &str| ("the request token".to_owned(), text.as_bytes().to_vec());
    vec![
        request(REQUEST_TOKEN),
        request(STANDARD.encode(REQUEST_TOKEN).trim_end_matches('=')),
        ("an Authorization header".into(), b"uthorization: ".to_vec()),
        ("a bearer token".into(), b"earer request".to_vec()),
        ("a private key in PEM".into(), b"PRIVATE KEY-----".to_vec()),
    ]
}

#[test]
fn nothing_secret_is_said_or_kept() {
    let mut world = World::start();
    let mut found = Found::default();
    let mut secrets = request_secrets();
    for level in ["-v", "-q", "--ttl=1h"] {
        for format in ["text", "json"] {
            for job in [world.github(), world.circleci(true), world.circleci(false)] {
                round(
                    &mut found,
                    &mut secrets,
                    &job,
                    &["once", level, "--format", format, "--destination", "d"],
                );
            }
        }
    }
    handed_over(&world, &mut found, &mut secrets);
    failures(&mut world, &mut found, &mut secrets);
    for token in world.issuer.minted() {
        secrets.extend(token_secrets(&token));
    }
    for format in ["text", "json"] {
        found.add("the audit", succeed(&mut world.authority.command(["audit", "--format", format])));
    }
    found.add("the authority's log", world.authority.stderr());
    assert!(world.authority.terminate().success());
    let files: Vec<_> = snapshot(&world.authority.data_dir()).into_iter().collect();
    let store: Vec<_> =
        files.iter().filter(|(path, _)| path.to_string_lossy().contains("authority.db")).collect();
    assert!(!store.is_empty());
    for (path, bytes) in store {
        found.add(path.display().to_string(), bytes.clone());
    }
    found.check(&secrets);
    masks_hold_signatures(&world, &found);
}

/// Certificates, everything that can be said of them, and their end.
fn round(found: &mut Found, secrets: &mut Vec<(String, Vec<u8>)>, job: &Job, once: &[&str]) {
    let level = if once.contains(&"-q") { "-q" } else { "-v" };
    assert_eq!(found.run(job, once).code, 0);
    secrets.extend(keys_of(&job.path("d")));
    if let Some(token) = job.environment().get("CIRCLE_OIDC_TOKEN_V2") {
        secrets.extend(token_secrets(token));
    }
    for path in snapshot(&job.path("d")).keys().chain([&job.path("d")]) {
        for format in ["text", "json"] {
            found.run(job, &["inspect", &path.display().to_string(), "--format", format]);
        }
    }
    let manifest = read(job.path("d/manifest.json"));
    found.add("manifest.json", manifest);
    assert_eq!(found.run(job, &["cleanup", level, "d"]).code, 0);
}

fn handed_over(world: &World, found: &mut Found, secrets: &mut Vec<(String, Vec<u8>)>) {
    let token = world.issuer.token("github", &world.authority.url()).mint();
    secrets.extend(token_secrets(&token));
    let job = world.github().env("JWT", &token);
    std::fs::write(job.path("jwt"), &token).unwrap();
    assert_eq!(found.run(&job, &["once", "-v", "--id-token-env", "JWT"]).code, 0);
    assert_eq!(found.run(&job, &["once", "-v", "--id-token-file", "jwt"]).code, 4);
    assert_eq!(found.run(&job, &["inspect", "jwt"]).code, 0);
    // Typed in the wrong place.
    for args in
        [["once", "--token", &token], ["once", "--id-token-env", &token], ["once", "--authority", &token]]
    {
        let outcome = job.run(args);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        if !args.contains(&"--authority") && !args.contains(&"--id-token-env") {
            found.add("a token for a name", outcome.stderr);
        }
    }
    std::fs::write(job.path("jwt"), format!("{token}\n{token}")).unwrap();
    assert_eq!(found.run(&job, &["once", "--id-token-file", "jwt"]).code, 2);
}

fn failures(world: &mut World, found: &mut Found, secrets: &mut Vec<(String, Vec<u8>)>) {
    let job = world.github();
    assert_eq!(found.run(&job, &["once", "-v", "--token", "nobody"]).code, 4);
    assert_eq!(found.run(&job, &["once", "-v", "--role", "nobody"]).code, 4);
    let untrusted = world.github().without("MACHINE_ID_CA_FILE");
    assert_eq!(found.run(&untrusted, &["once", "-v", "--timeout", "3s"]).code, 5);
    let unwritable = world.github().env("GITHUB_OUTPUT", "/no/such/file");
    assert_eq!(found.run(&unwritable, &["once", "-v"]).code, 6);
    for fault in [
        Fault::Status(503),
        Fault::Status(401),
        Fault::Body("{\"value\": 5}".into()),
        // An endpoint that says back what it was sent.
        Fault::Answer(500, String::new(), format!("Authorization: bearer {REQUEST_TOKEN}")),
        Fault::Answer(403, String::new(), format!("you said: {REQUEST_TOKEN}")),
        Fault::Answer(401, String::new(), format!("{{\"authorization\": \"bearer {REQUEST_TOKEN}\"}}")),
        Fault::Body(format!("{{\"value\": \"eyJ.eyJ.eyJ\", \"x\": {REQUEST_TOKEN}")),
        Fault::Hang,
    ] {
        world.issuer.fail(Endpoint::Token, fault);
        assert!(matches!(found.run(&job, &["once", "-v", "--timeout", "1s"]).code, 3 | 5));
    }
    world.issuer.heal(Endpoint::Token);
    let circle = world.circleci(true);
    std::fs::write(
        circle.path("bin/circleci"),
        "#!/bin/sh\necho \"debug: $CIRCLE_OIDC_TOKEN_V2\" >&2\nexit 1\n",
    )
    .unwrap();
    assert_eq!(found.run(&circle, &["once", "-v"]).code, 0);
    secrets.extend(token_secrets(circle.environment().get("CIRCLE_OIDC_TOKEN_V2").unwrap()));
    world.authority.kill();
    assert_eq!(found.run(&job, &["once", "-v", "--timeout", "1s"]).code, 5);
    world.authority.restart();
}

fn masks_hold_signatures(world: &World, found: &Found) {
    let minted = world.issuer.minted();
    let signatures: Vec<&str> = minted.iter().map(|token| token.rsplit('.').next().unwrap()).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let masks: Vec<String> = found
        .0
        .iter()
        .flat_map(|(_, bytes)| text(bytes).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| line.strip_prefix("::add-mask::").map(str::to_owned))
        .collect();
    assert!(masks.len() > 6);
    assert!(masks.iter().filter(|mask| signatures.contains(&mask.as_str())).count() > 6);
    assert!(masks.iter().all(|mask| !mask.contains('.') && mask.len() < 400), "{masks:?}");
}

#[test]
fn processes_have_no_secret_in_their_arguments_or_environment() {
    let world = World::start();
    // What the job itself has in its environment is the platform's doing.
    let job = world.github();
    let script =
        "cp -a \"$MACHINE_ID_DESTINATION\" kept; touch ready; while ! [ -e end ]; do sleep 0.05; done";
    let mut running = job.start(["--", "sh", "-c", script]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    let children = read(format!("/proc/{0}/task/{0}/children", running.id()));
    let command = children.split_whitespace().next().unwrap().to_owned();
    let mut secrets = keys_of(&job.path("kept"));
    for token in world.issuer.minted() {
        secrets.extend(token_secrets(&token));
        secrets.push(("a signature".into(), token.rsplit('.').next().unwrap().into()));
    }
    secrets.push(("a private key in PEM".into(), b"PRIVATE KEY".to_vec()));
    for file in [
        format!("/proc/{}/cmdline", running.id()),
        format!("/proc/{command}/cmdline"),
        format!("/proc/{command}/environ"),
    ] {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.is_empty());
        for (what, secret) in &secrets {
            assert!(!contains(&bytes, secret), "{file} holds {what}");
        }
    }
    // Another process of this user cannot read the keys out of its memory, unless it is root.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(format!("/proc/{}/mem", running.id())).unwrap(),
    );
    assert_eq!(owner, 0, "it may be dumped");
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    for (what, secret) in &secrets {
        assert!(
            !contains(running.stderr().as_bytes(), secret) || what == "a signature",
            "stderr holds {what}"
        );
    }
}

#[test]
fn secret_values_do_not_print() {
    let keys = JobKeys::generate("x", KeyKinds { ssh: true, tls: true, host: true }, KeyType::Ed25519, None)
        .unwrap();
    let (ssh, tls) = (keys.ssh.as_ref().unwrap(), keys.tls.as_ref().unwrap());
    let proof = Proof::id_token(Secret::new("hunter2-hunter2".into()));
    let request = ExchangeRequest {
        token: "t".into(),
        join_method: "github".into(),
        proof: proof.clone(),
        ttl_seconds: 60,
        outputs: Vec::new(),
        leaves: Vec::new(),
    };
    let revoke = RevokeRequest { issuance_id: "i".into(), assertion: Secret::new("hunter2-hunter2".into()) };
    let output = OutputResponse {
        name: "x".into(),
        ssh_certificate: Some("ssh-ed25519-cert-v01@openssh.com AAAA".into()),
        tls_certificate_chain: None,
        jwt: None,
        serial: "1".into(),
        tls_serial: None,
        principals: Vec::new(),
        roles: Vec::new(),
    };
    let only_ssh =
        JobKeys::generate("x", KeyKinds { ssh: true, tls: false, host: false }, KeyType::Ed25519, None)
            .unwrap();
    let seed_of =
        |key: &SshKey| key.private.as_ref().unwrap().key_data().ed25519().unwrap().private.to_bytes();
    let (seed, other_seed) = (seed_of(ssh), seed_of(only_ssh.ssh.as_ref().unwrap()));
    let openssh = ssh.openssh().unwrap().unwrap();
    let revocable = Revocable::of_answer("i", &[output], std::slice::from_ref(&only_ssh)).unwrap();
    let environment = Environment::from_pairs([("JWT", "hunter2-hunter2")]);
    let (file, tls_file) =
        (File::key("key", openssh.to_string()), File::key("tls.key", tls.pem().to_string()));
    let printed = format!(
        "{keys:?} {keys:#?} {only_ssh:?} {ssh:?} {tls:?} {proof:?} {proof:#?} {request:?} {request:#?} {revoke:?} {revocable:?} {revocable:#?} \
         {environment:?} {file:?} {tls_file:?}"
    );
    let mut secrets = vec![("a secret".to_owned(), b"hunter2-hunter2".to_vec())];
    for (what, bytes) in [("a seed", &seed[..]), ("another seed", &other_seed[..]), ("a TLS key", &tls.pkcs8)]
    {
        secrets.extend(forms(what, bytes));
    }
    secrets.extend(
        openssh.lines().chain(tls.pem().lines()).map(|line| ("a line".to_owned(), line.as_bytes().to_vec())),
    );
    for (what, secret) in secrets {
        assert!(!contains(printed.as_bytes(), &secret), "{what} in {printed}");
    }
    assert!(printed.contains("redacted") && printed.contains("JWT"));
}
