//! What an issuance takes of the file, all pages and indexes, over so many that it shows.

use serde_json::{Map, Value};

use super::super::super::NewCertificate;
use super::*;
use crate::random;

/// What GitHub says of a run, with what differs from run to run.
fn claims(n: u64) -> Map<String, Value> {
    let mut claims: Map<String, Value> =
        serde_json::from_str(include_str!("../../../../../tests/fixtures/join/github/claims.json")).unwrap();
    let commit = random::hex::<20>().unwrap();
    for (name, value) in [
        ("iss", "https://token.actions.githubusercontent.com".to_owned()),
        ("aud", format!("https://machine-id.example.com/{}", random::hex::<32>().unwrap())),
        ("jti", random::hex::<16>().unwrap()),
        ("sub", format!("repo:company-{}/service-{}:ref:refs/heads/main", n % 7, n % 97)),
        ("repository", format!("company-{}/service-{}", n % 7, n % 97)),
        ("repository_owner", format!("company-{}", n % 7)),
        ("actor", format!("person-{}", n % 41)),
        ("check_run_id", (57_816_563_539 + n * 7919).to_string()),
        ("run_id", (20_143_266_074 + n * 104_729).to_string()),
        ("run_number", (n % 1000).to_string()),
        (
            "workflow_ref",
            format!("company-{}/service-{}/.github/workflows/deploy.yml@refs/heads/main", n % 7, n % 97),
        ),
        ("job_workflow_ref", format!("company-{}/ci/.github/workflows/deploy.yml@refs/heads/main", n % 7)),
        ("workflow_sha", commit.clone()),
        ("job_workflow_sha", random::hex::<20>().unwrap()),
        ("sha", commit),
    ] {
        claims.insert(name.to_owned(), value.into());
    }
    for name in ["iat", "nbf", "exp"] {
        claims.insert(name.to_owned(), (NOW + i64::try_from(n).unwrap()).into());
    }
    claims
}

/// With an SSH and a TLS certificate for each output.
fn realistic(n: u64, outputs: usize) -> Entry {
    let mut entry = issuance(n);
    let [ssh, tls] = <[NewCertificate; 2]>::try_from(entry.plan.certificates.clone()).unwrap();
    let mut serials = random::serials().unwrap();
    let mut certificate = |of: &NewCertificate, output: usize| NewCertificate {
        serial: serials.next().unwrap(),
        output: format!("identity-{output}"),
        key_hash: random::bytes().unwrap(),
        ..of.clone()
    };
    entry.plan.certificates =
        (0..outputs).flat_map(|output| [certificate(&ssh, output), certificate(&tls, output)]).collect();
    entry.plan.id = random::id("i").unwrap();
    entry.plan.fingerprint = random::bytes().unwrap();
    entry.entry.claims = claims(n).into();
    entry
}

/// How many bytes of the file each of so many issuances takes.
fn size(count: u64, outputs: usize) -> u64 {
    let bench = Bench::new();
    let pages = || {
        let connection = rusqlite::Connection::open(bench.path()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        fs::metadata(bench.path()).unwrap().len()
    };
    let before = pages();
    for some in 0..count / 200 {
        for answer in bench.issue_all((some * 200..(some + 1) * 200).map(|n| realistic(n, outputs)).collect())
        {
            assert_eq!(answer.unwrap(), FRESH);
        }
    }
    (pages() - before) / count
}

#[test]
fn an_issuance_with_one_output_takes_a_kilobyte_and_a_half() {
    let size = size(4000, 1);
    assert!(size <= 1600, "{size}");
}

#[test]
fn an_issuance_with_sixteen_outputs_takes_five_kilobytes_at_most() {
    let size = size(2000, 16);
    assert!(size <= 5000, "{size}");
}
