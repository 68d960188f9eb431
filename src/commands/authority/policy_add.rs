//! `machine-id authority policy add`: one more file, which lets in the jobs of one project.

use std::io::ErrorKind;

use serde_json::json;

use super::example::Wanted;
use crate::authority::config::Config;
use crate::authority::policy::Policy;
use crate::cli::Format;
use crate::cli::authority::PolicyAdd;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::terminal::{log, print};

pub(super) fn run(args: &PolicyAdd) -> Result<()> {
    let wanted = Wanted::read(&args.what, &args.login, args.workflow.as_deref())?;
    let config = Config::load(&args.data.data_dir)?;
    let sources = config.policy_files().sources_to_extend()?;
    let policy = if sources.is_empty() { Policy::default() } else { config.load_policy()? };
    let is_there = |name: &str| config.policy.join(format!("{name}.yaml")).exists();
    let taken = |name: &str| policy.has(name) || is_there(name);
    let file = wanted.write(config.issuer_ca_file.as_ref(), config.owner, taken)?;
    let alone = file.beside(&[])?;
    if let Some(token) = policy.already(&alone, file.asked_for) {
        let said = format!(
            "join token `{}` at {} lets in {} already: nothing was written",
            token.name, token.origin, file.whom
        );
        return tell(args.format, &said, &json!({"added": false, "join_token": token.name}));
    }
    if policy.has(&file.name) {
        return Err(Error::usage(format!("the policy has a `{}` already, which is another", file.name))
            .hint("choose another name"));
    }
    file.beside(&sources)?;
    let path = config.policy.join(file.file());
    let written = Folder::add_inside(&config.policy, &file.file(), file.text.as_bytes());
    let hint = match &written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            "somebody has just written it: run this again; where that does not help, choose another name"
        }
        _ => "run it as the user whose directory it is: `sudo -u machine-id machine-id …`",
    };
    let written = written.context(Kind::Usage, format!("cannot write {}", path.display()));
    written.map_err(|error| error.hint(hint))?;
    file.notes.iter().for_each(|note| log(&format!("note: {note}")));
    let said = format!(
        "wrote {}: join token `{}` lets in {}, as `{}`\na running authority takes it within seconds",
        path.display(),
        file.name,
        file.whom,
        args.login
    );
    let json = json!({"added": true, "join_token": file.name, "file": path.display().to_string(), "notes": file.notes});
    tell(args.format, &said, &json)
}

fn tell(format: Format, said: &str, json: &serde_json::Value) -> Result<()> {
    match format {
        Format::Text => print(&format!("{said}\n")),
        Format::Json => print(&crate::text::json(&format!("{json:#}\n"))),
    }
}
