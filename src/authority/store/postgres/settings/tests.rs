use proptest::prelude::*;

use super::*;

fn settings(url: &str, env: &[(&str, &str)]) -> Result<Settings> {
    Settings::parse(url, &Environment::from_pairs(env.iter().copied()), Path::new("/data"), Owner::me())
}

/// What a URL comes to, without TLS, which reads files.
fn plain(url: &str, env: &[(&str, &str)]) -> String {
    let mut env = env.to_vec();
    env.extend([("PGSSLMODE", "disable"), ("PGUSER", "me")]);
    settings(url, &env).unwrap_or_else(|error| panic!("{url}: {error:?}")).to_string()
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    for (url, is) in [
        ("postgres://", "postgres://me@/run/postgresql:5432/me"),
        ("postgresql://u@", "postgres://u@/run/postgresql:5432/u"),
        ("postgres:///db", "postgres://me@/run/postgresql:5432/db"),
        ("postgres://h", "postgres://me@h:5432/me"),
        ("postgres://h:1/db", "postgres://me@h:1/db"),
        ("postgres://:1/db", "postgres://me@/run/postgresql:1/db"),
        ("postgres://u:p@h/db", "postgres://u@h:5432/db"),
        ("postgres://u%40x:%2F%3A%25@h/d%2Fb", "postgres://u@x@h:5432/d/b"),
        ("postgres://a,b:2,c/db", "postgres://me@a:5432,b:2,c:5432/db"),
        ("postgres://[::1]:2,[2001:db8::1]/db", "postgres://me@[::1]:2,[2001:db8::1]:5432/db"),
        ("postgres://%2Frun%2Fx:2/db", "postgres://me@/run/x:2/db"),
        ("postgres:///db?host=/run/x&port=2&user=u", "postgres://u@/run/x:2/db"),
        ("postgres://?host=a,b&port=2&dbname=db", "postgres://me@a:2,b:2/db"),
        ("postgres:///db?host=a,b&port=2,3", "postgres://me@a:2,b:3/db"),
        ("postgres:///db?hostaddr=127.0.0.1", "postgres://me@127.0.0.1:5432/db"),
    ] {
        assert_eq!(plain(url, &[]), is, "{url}");
    }
}

#[test]
fn variables_say_what_the_url_does_not() {
    let env = [
        ("PGHOST", "h"),
        ("PGPORT", "7"),
        ("PGDATABASE", "d"),
        ("PGAPPNAME", "a"),
        ("PGCONNECT_TIMEOUT", "9"),
    ];
    assert_eq!(plain("postgres://", &env), "postgres://me@h:7/d");
    assert_eq!(plain("postgres://u@x:8/y", &env), "postgres://u@x:8/y");
    let all = settings("postgres://?sslmode=disable&user=u&password=p", &env).unwrap();
    assert_eq!((all.connect_timeout, all.config.get_application_name()), (Duration::from_secs(9), Some("a")));
    assert_eq!(all.password_from().as_deref(), Some("the URL"));
    let all = settings("postgres://u@?sslmode=disable", &[("PGPASSWORD", "p")]).unwrap();
    assert_eq!(all.password_from().as_deref(), Some("PGPASSWORD"));
    // The URL's word counts, and weaker than it need be is said.
    let weak = settings("postgres://u@h/d", &[("PGSSLMODE", "prefer")]).unwrap();
    assert!(
        weak.warnings()[0].0.contains("`sslmode=prefer` believes whoever answers"),
        "{:?}",
        weak.warnings()
    );
    assert!(settings("postgres://u@/d?sslmode=disable", &[]).unwrap().warnings().is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    for (url, env, said, hint) in [
        ("postgres:/x", ("", ""), "does not begin with `postgres://`", ""),
        ("postgres://h?sslmod=x", ("", ""), "has the unknown parameter `sslmod`", "did you mean `sslmode`?"),
        ("postgres://h?zzz=x", ("", ""), "has the unknown parameter `zzz`", "there are: host, "),
        ("postgres://h?password=a&b=c", ("", ""), "has an unknown parameter behind `password`", "`%26`"),
        (
            "postgres://h?service=x",
            ("", ""),
            "`service` is not supported",
            "write what the service file says",
        ),
        ("postgres://h?options=-c%20x", ("", ""), "`options` is not supported", "ALTER ROLE"),
        ("postgres://h?sslpassword=x", ("", ""), "`sslpassword` is not supported", "unencrypted"),
        ("postgres://h", ("PGSERVICE", "x"), "PGSERVICE is not supported", "write what"),
        ("postgres://h", ("PGSSLMODE", "x"), "PGSSLMODE must be one of: verify-full, ", ""),
        ("postgres://h?sslmode=x", ("", ""), "`sslmode` must be one of: verify-full, ", ""),
        ("postgres://h?sslmode=", ("", ""), "`sslmode` has no value", ""),
        ("postgres://h?sslmode", ("", ""), "has a parameter that is not NAME=VALUE", ""),
        ("postgres://h?host=x", ("", ""), "has `host` twice", ""),
        ("postgres://h?user=a&user=b", ("", ""), "has `user` twice", ""),
        ("postgres://h?user=a%00", ("", ""), "`user` holds a NUL", ""),
        ("postgres://h?connect_timeout=0", ("", ""), "`connect_timeout` must be a number from 1 to 10", ""),
        (
            "postgres://h?target_session_attrs=standby",
            ("", ""),
            "must be one of: read-write, primary, any",
            "",
        ),
        ("postgres://h:0", ("", ""), "a port of the database is no number from 1 to 65535", "brackets"),
        ("postgres://::1", ("", ""), "a port of the database is no number", "brackets"),
        ("postgres://[::1", ("", ""), "a `[` without its `]`", ""),
        ("postgres://[::1]x", ("", ""), "something else than a port behind a `]`", ""),
        ("postgres:///x?host=a,b&port=1,2,3", ("", ""), "not as many as one another", ""),
        ("postgres:///x?hostaddr=h", ("", ""), "`hostaddr` of the database is no IP address", ""),
        ("postgres://@a@h", ("", ""), "has an `@` too many", "`%40`"),
        ("postgres://u:a/b@h", ("", ""), "has an `@` too many", "`%2F`"),
        ("postgres://u%4@h", ("", ""), "a `%` without two hexadecimal digits", "`%25`"),
        ("postgres://u%FF@h", ("", ""), "is not UTF-8", ""),
        ("postgres://%40x", ("", ""), "a socket without a path", "name its folder"),
    ] {
        let error = settings(url, &[env]).map(|all| all.to_string()).expect_err(url);
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        assert!(error.to_string().contains(said), "{url}: {error}");
        assert!(error.hints().join("\n").contains(hint), "{url}: {:?}", error.hints());
    }
}

proptest! {
    /// Wherever a password stands that is not encoded as it must be, no message and no form of the settings has it.
    #[test]
    fn no_password_is_ever_said(
        before in r"[ -~]{0,4}", after in r"[ -~]{0,4}",
        form in prop::sample::select(vec![
            "postgres://u:P@h/d", "postgres://u:P@h:5432/d?sslmode=disable", "postgres://u:P@", "postgres://:P@[::1]/d",
            "postgres://h/d?user=u&password=P", "postgres://h/d?password=P&sslmode=disable", "postgresql://u:P@a,b/d?x=y",
        ]),
        in_env: bool,
    ) {
        const MARK: &str = "h4rd2gu3ss";
        let password = format!("{before}{MARK}{after}");
        let said = if in_env {
            let url = form.replace(":P@", "@").replace("password=P", "connect_timeout=1");
            settings(&url, &[("PGPASSWORD", &password), ("PGSSLMODE", "disable")])
        } else {
            settings(&form.replace('P', &password), &[("PGSSLMODE", "disable")])
        };
        let said = match said {
            Ok(all) => format!("{all} {all:?} {:?} {:?}", all.warnings(), all.config(&all.targets[0], None, None)),
            Err(error) => format!("{error} {error:?} {:?}", error.hints()),
        };
        prop_assert!(!said.contains(MARK), "{said}");
        let url = DatabaseUrl::parse(&form.replace('P', &password));
        let shown = format!("{url:?}");
        prop_assert!(!shown.contains(MARK), "{shown}");
    }
}
