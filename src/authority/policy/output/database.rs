//! The output `database`: a certificate whose common name is a database user.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::merge::Merged;
use crate::authority::policy::resources::{DB_NAMES, DB_USERS, Role};
use crate::denial::Denial;
use crate::output::DATABASE;
use crate::wire::is_name;

/// What its roles become.
pub(super) static POLICY: OutputPolicy = OutputPolicy {
    declaration: &DATABASE,
    recorded: &["service", "database"],
    fields: &[&DB_USERS, &DB_NAMES],
    grant,
};

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    if !merged.option("service").is_some_and(is_name) {
        return Err(
            merged.invalid("`service` is lower-case letters, digits, `_`, `.` and `-`, at most 64 of them")
        );
    }
    merged.leave_out_pinned();
    let user = merged.named(&DB_USERS, "user")?;
    // One role must give both: what one gives on its databases, another does
    // not give on these.
    let roles = match merged.named(&DB_NAMES, "database")? {
        // The certificate is good for every database that the server lets its
        // user into. A job that names none does not even say that it stays out.
        None => match merged.restricted(&DB_NAMES) {
            Some(role) => return Err(unnamed(merged, role)),
            None => merged.roles.clone(),
        },
        Some(database) => {
            let givers = merged.granting(&DB_NAMES, &database);
            if givers.is_empty() {
                return Err(merged.refused(&DB_NAMES, &database));
            }
            givers
        }
    };
    let common_name = merged.choose(&DB_USERS, "user", user, &roles)?;
    Ok((None, Some(TlsGrant { common_name, organizations: Vec::new() })))
}

/// The refusal of an output without a database; who denies some, only the operator hears.
fn unnamed(merged: &Merged<'_, '_>, role: &Role) -> Denial {
    let mut denial = merged.invalid("its roles deny databases; say which it is for with `database=…`");
    denial.detail.push_str(&format!("; they are denied by role `{}` at {}", role.name, role.origin));
    denial
}
