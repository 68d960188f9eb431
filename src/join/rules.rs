//! Rules over claims: conditions on named claims, all of which must hold.

mod claim;
mod claims;
mod glob;
mod grammar;
mod guard;
mod read;
mod rule;
mod saying;
mod shape;

pub use claim::claim;
pub use glob::{glob, is_open, is_pattern, literal_prefix, names_part};
pub use grammar::{Grammar, Labels, Pattern};
pub use guard::{EVENT_NAME, Guard, PIPELINE_SOURCE, RUN_PHASE, RUN_TYPE, SSH_RERUN};
pub use read::{anchor, read, read_as};
pub use rule::{
    CHOSEN_WORKFLOW, Condition, Constraint, Field, Match, ONE_RUN, OWNER, Open, REF, Rule, Unless, WORKFLOW,
    Want,
};
pub use saying::{Saying, Says, of_parts, opened};
pub use shape::{COMMIT, FULL_REF, KIND, NAME, NUMBER, SHORT_REF, Shape, URLS, UUID, overlap};
