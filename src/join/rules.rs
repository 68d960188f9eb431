//! Rules over claims: conditions on named claims, all of which must hold.

mod claim;
mod claims;
mod glob;
mod read;
mod rule;
mod saying;
mod shape;

pub use claim::claim;
pub use glob::{glob, is_open, is_open_ref, literal_prefix, names_part};
pub use read::{anchor, read};
pub use rule::{
    Condition, Constraint, Field, Guard, Match, ONE_RUN, OWNER, Open, REF, REF_PATH, Rule, WORKFLOW, Want,
};
pub use saying::{Saying, Says, WILDCARDS, of_pairs, opened};
pub use shape::{COMMIT, FULL_REF, KIND, NAME, NUMBER, SHORT_REF, Shape, URLS, UUID, overlap};
