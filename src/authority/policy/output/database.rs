//! The output `database`: a certificate whose common name is a database user.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::{DB_NAMES, DB_USERS, Role};
use crate::denial::Denial;
use crate::output::DATABASE;

/// What its roles become.
pub(super) static POLICY: OutputPolicy = OutputPolicy {
    declaration: &DATABASE,
    recorded: &["service", "database"],
    fields: &[&DB_USERS, &DB_NAMES],
    grant,
};

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    set.check_name("service")?;
    set.leave_out_pinned();
    let user = set.named(&DB_USERS, "user")?;
    // One role must give both: what one gives on its databases, another does
    // not give on these.
    let roles = match set.named(&DB_NAMES, "database")? {
        // The certificate is good for every database that the server lets its
        // user into. A job that names none does not even say that it stays out.
        None => match set.bot.each_role().find(|role| role.deny.contains_key(DB_NAMES.key)) {
            Some(role) => return Err(unnamed(set, role)),
            None => set.roles.clone(),
        },
        Some(database) => match set.granting(&DB_NAMES, &database) {
            givers if givers.is_empty() => return Err(set.refused(&DB_NAMES, &database)),
            givers => givers,
        },
    };
    let common_name = set.choose(&DB_USERS, "user", user, &roles)?;
    Ok((None, Some(TlsGrant { common_name, organizations: Vec::new() }), None))
}

/// The refusal of an output without a database; who denies some, only the operator hears.
fn unnamed(set: &RoleSet<'_, '_>, role: &Role) -> Denial {
    let mut denial = set.invalid("its roles deny databases; say which it is for with `database=…`");
    denial.detail.push_str(&format!("; they are denied by role `{}` at {}", role.name, role.origin));
    denial
}
