//! The output `database`: a certificate whose common name is a database user.

use super::{Halves, OutputKind, kubernetes};
use crate::authority::policy::field::{Field, Wildcard, list, plain};
use crate::authority::policy::grant::TlsGrant;
use crate::authority::policy::merge::Merged;
use crate::authority::policy::role::Role;
use crate::denial::Denial;
use crate::join::rules::glob;
use crate::wire::is_name;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "database",
    summary: "databases with certificate login: PostgreSQL, MariaDB, Redis, MongoDB, CockroachDB",
    ssh: false,
    tls: true,
    options: &["service", "user", "database"],
    needs: &["service"],
    recorded: &["service", "database"],
    fields: &[&USERS, &NAMES],
    grant,
};

/// The longest name that PostgreSQL keeps whole; others take more.
const MAX_NAME: usize = 63;

pub(super) static USERS: Field = Field {
    key: "db_users",
    noun: "database user",
    shape,
    hint: "letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`, at most 63",
    wildcard: Wildcard::Alone,
    covers: glob,
    same_as: Some(&kubernetes::USERS),
    hollow: |_| false,
    // Whom PostgreSQL; MariaDB, MySQL and CockroachDB; and Redis come with.
    superusers: &["postgres", "root", "default"],
    literal_only: None,
    entries: list,
};

static NAMES: Field =
    Field { key: "db_names", noun: "database name", same_as: None, superusers: &[], ..USERS };

/// No `:`, so that no database user is ever another kind's common name (`bot:…`, `app:…`).
fn shape(text: &str) -> bool {
    plain(text, "._-", MAX_NAME)
}

fn grant(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    if !merged.option("service").is_some_and(is_name) {
        return Err(
            merged.invalid("`service` is lower-case letters, digits, `_`, `.` and `-`, at most 64 of them")
        );
    }
    merged.leave_out_pinned();
    let user = merged.named(&USERS, "user")?;
    // One role must give both: what one gives on its databases, another does
    // not give on these.
    let roles = match merged.named(&NAMES, "database")? {
        // The certificate is good for every database that the server lets its
        // user into. A job that names none does not even say that it stays out.
        None => match merged.restricted(&NAMES) {
            Some(role) => return Err(unnamed(merged, role)),
            None => merged.roles.clone(),
        },
        Some(database) => {
            let givers = merged.givers(&NAMES, &database);
            if givers.is_empty() {
                return Err(merged.refused(&NAMES, &database));
            }
            givers
        }
    };
    let common_name = merged.choose(&USERS, "user", user, &roles)?;
    Ok((None, Some(TlsGrant { common_name, organizations: Vec::new() })))
}

/// The refusal of an output without a database; who denies some, only the operator hears.
fn unnamed(merged: &Merged<'_, '_>, role: &Role) -> Denial {
    let mut denial = merged.invalid("its roles deny databases; say which it is for with `database=…`");
    denial.detail.push_str(&format!("; they are denied by role `{}` at {}", role.name, role.origin));
    denial
}
