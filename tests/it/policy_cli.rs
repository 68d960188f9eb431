//! What an operator has to understand a policy by: `authority check` and its
//! lints, `explain`, `audit`, and the documents.

mod check;
mod claims;
mod documents;
mod elsewhere;
mod lints;
mod never;
mod parts;
mod platforms;
mod pushed;
mod refusals;
