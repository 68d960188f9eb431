//! Rules over claims: conditions on named claims, all of which must hold.

mod claim;
mod claims;
mod glob;
mod read;
mod rule;

pub use claim::claim;
pub use glob::{glob, is_open, is_open_ref, literal_prefix, names_part};
pub use read::{anchor, read};
pub use rule::{
    Condition, Constraint, Field, Guard, Match, ONE_RUN, OWNER, Open, REF, REF_PATH, Rule, WORKFLOW, Want,
};
