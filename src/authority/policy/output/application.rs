//! The output `application`: a certificate for one named application.
//!
//! Applications are not resources here, so a role's `app_labels` can be about
//! their name alone: `{name: orders}`, `{name: [orders, billing]}`, or
//! `{'*': '*'}` for all of them.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::APPLICATIONS;
use crate::denial::Denial;
use crate::output::APPLICATION;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &APPLICATION, recorded: &["app"], fields: &[&APPLICATIONS], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    set.leave_out_pinned();
    let app = set.named(&APPLICATIONS, "app")?;
    let app = set.choose(&APPLICATIONS, "app", app, &set.roles)?;
    // Never the name of a database user or of a Kubernetes user.
    Ok((None, Some(TlsGrant { common_name: format!("app:{app}"), organizations: Vec::new() }), None))
}
