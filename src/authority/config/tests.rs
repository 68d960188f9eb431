use super::*;

const MINIMAL: &str = "version: v1\ncluster: id.example.com\npublic_url: https://id.example.com\n";

fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse(text, Path::new("/data"), Owner::me())
}

#[test]
fn defaults_are_below_the_data_directory() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.store, StorePlace::Sqlite("/data/authority.db".into()));
    assert_eq!(config.policy, Path::new("/data/policy"));
    assert_eq!(config.listen.port(), 8443);
    assert_eq!(config.retain, None, "for ever");
    assert_eq!(parse(&format!("{MINIMAL}retain: 400d\n")).unwrap().retain, Some(400 * 86_400));
    let config = parse(&format!("{MINIMAL}store: sqlite:/var/db\nissuer_ca_file: ca.pem\n")).unwrap();
    assert_eq!(config.store, StorePlace::Sqlite("/var/db".into()));
    assert_eq!(config.issuer_ca_file.as_deref(), Some(Path::new("/data/ca.pem")));
}

#[test]
fn nothing_is_let_go_of_a_job_that_goes_on() {
    assert!(RETAIN > i64::from(crate::wire::MAX_TTL));
}

#[test]
fn mistakes_have_a_place() {
    for (text, said) in [
        (String::new(), "1:1: a configuration is one YAML document"),
        ("version: v2".into(), "1:10: `version` must be v1"),
        (format!("{MINIMAL}lisen: x"), "4:1: the configuration has no `lisen`"),
        (format!("{MINIMAL}listen: x"), "4:9: `listen` must be ADDRESS:PORT"),
        (
            format!("{MINIMAL}store: x"),
            "4:8: `store` must be `sqlite:PATH` or `postgres://USER@HOST/DATABASE`",
        ),
        (
            format!("{MINIMAL}store: 'sqlite:'"),
            "4:8: `store` must be `sqlite:PATH` or `postgres://USER@HOST/DATABASE`",
        ),
        (
            format!("{MINIMAL}store: postgres://u@h/d?sslmod=require"),
            "4:8: the database's URL has the unknown parameter `sslmod`",
        ),
        (
            format!("{MINIMAL}store: postgres://u@h/d?sslmode=x"),
            "4:8: the database's URL: `sslmode` must be one of: verify-full, verify-ca, require, prefer, allow, disable",
        ),
        (format!("{MINIMAL}keys: pkcs11:x"), "4:7: the token's URI has a part that is not ATTRIBUTE=VALUE"),
        (format!("{MINIMAL}suite: fips"), "4:8: `suite` must be modern or compatible"),
        (format!("{MINIMAL}retain: 191h"), "4:9: `retain` must be at least 8 days"),
        (
            format!("{MINIMAL}retain: 99999999999999999999d"),
            "4:9: `retain` `99999999999999999999d` is not a duration such as 90s, 30m or 1h30m",
        ),
        (format!("{MINIMAL}tls: {{cert_file: x}}"), "4:6: tls lacks `key_file`"),
        (
            MINIMAL.replace("id.example.com\np", "A b\np"),
            "2:10: `cluster` must be lower-case letters, digits, dots and dashes",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err().to_string(), said);
    }
}

#[test]
fn quotas_are_whole_numbers() {
    let quotas = |limits: &str| parse(&format!("{MINIMAL}limits: {limits}\n")).map(|config| config.quotas);
    assert_eq!(parse(MINIMAL).unwrap().quotas, Quotas::default());
    assert_eq!(
        quotas("{certificates_per_hour_of_run: 32, certificates_per_hour_of_token: 100000001}")
            .unwrap_err()
            .to_string(),
        "4:76: `certificates_per_hour_of_token` must be a whole number from 32 to 100000000"
    );
    assert_eq!(
        quotas("{certificates_per_hour_of_run: 32}").unwrap(),
        Quotas { run: 32, ..Quotas::default() }
    );
    for wrong in ["31", "-1", "100000001", "1.5", "'99'", "yes", "99999999999999999999"] {
        let mistakes = quotas(&format!("{{certificates_per_hour_of_run: {wrong}}}")).expect_err(wrong);
        let said = "4:40: `certificates_per_hour_of_run` must be a whole number from 32 to 100000000";
        assert_eq!(mistakes.to_string(), said, "{wrong}");
    }
    assert_eq!(quotas("{certificates: 99}").unwrap_err().to_string(), "4:10: limits has no `certificates`");
}

#[test]
fn no_value_may_be_empty() {
    let full = format!(
        "{MINIMAL}listen: 0.0.0.0:1\nstore: sqlite:a\nkeys: file:k\nkey_passphrase_file: f\nsuite: modern\npolicy: p\nissuer_ca_file: c\n\
         retain: 30d\ntls: {{cert_file: c, key_file: k}}\nlimits: {{certificates_per_hour_of_token: 99}}\n"
    );
    parse(&full).unwrap();
    for emptied in document::emptied::emptied(&full) {
        let mistakes = parse(&emptied.text).expect_err(&emptied.path);
        emptied.is_refused_by(&mistakes.into_iter().map(|one| one.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let error = parse("version: v1\ncluster: A\npublic_url:\nlisten: x\n").unwrap_err().in_file("f");
    assert_eq!(error.to_string(), "f:2:10: `cluster` must be lower-case letters, digits, dots and dashes");
    assert_eq!(
        error.hints(),
        ["also at 3:1: `public_url` has no value", "also at 4:9: `listen` must be ADDRESS:PORT"]
    );
}

#[test]
fn public_urls_are_bare() {
    assert_eq!(check_public_url("https://id.example.com/").unwrap(), "https://id.example.com");
    assert_eq!(check_public_url("https://127.0.0.1:8443").unwrap(), "https://127.0.0.1:8443");
    for bad in ["http://x", "https://x/y", "https://x?y", "https://x#y", "https://u@x", "x", "https://"] {
        assert!(check_public_url(bad).is_err(), "{bad}");
    }
    let refused = check_public_url("https://id.example.com/machine-id").unwrap_err();
    assert_eq!(refused, "must be https://HOST or https://HOST:PORT: something follows the host and port");
}
