use super::*;

#[test]
fn more_keys_or_cas_than_anybody_has_are_refused_unheard() {
    let known = known();
    for kind in ["ssh-user", "ssh-host", "tls", "statement"] {
        let mut statement = AUTHOR.statement(8, NOON);
        (1..MOST).for_each(|_| drop(AUTHOR.add(&mut statement, kind)));
        let why =
            |statement: &Statement| believe(&signed_by(0, statement), Some(&known), None, NOON).unwrap_err();
        assert!(!why(&statement).contains("more than 16"), "{kind}: {}", why(&statement));
        AUTHOR.add(&mut statement, kind);
        // Whoever has signed it.
        let by_nobody = believe(&signed_by(7, &statement), Some(&known), None, NOON).unwrap_err();
        assert_eq!((why(&statement), by_nobody.contains("more than 16")), (by_nobody, true), "{kind}");
    }
}
