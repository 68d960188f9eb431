//! `machine-id authority instances`: the instances that are registered.

use std::path::Path;

use serde_json::{Value, json};

use super::data_dir::read_store;
use crate::authority::config::Config;
use crate::authority::store::instances::RegisteredInstance;
use crate::cli::Format;
use crate::clock::rfc3339;
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{shown, table};

/// Prints them, in the order of their registration.
pub(super) fn run(data_dir: &Path, format: Format) -> Result<()> {
    let config = Config::load(data_dir)?;
    let store = read_store(&config)?;
    let instances = block_on(store.instances())??;
    let page = match format {
        Format::Text => text(&instances),
        Format::Json => format!("{:#}\n", Value::from(instances.iter().map(json).collect::<Vec<_>>())),
    };
    print(&page)
}

fn json(instance: &RegisteredInstance) -> Value {
    json!({
        "instance": instance.instance,
        "bot": instance.bot,
        "token": instance.token,
        "generation": instance.generation,
        "registered_at": rfc3339(instance.registered),
        "last_seen": rfc3339(instance.seen),
        "locked": instance.locked.is_some(),
        "locked_at": instance.locked.as_ref().map(|(time, _)| rfc3339(*time)),
        "reason": instance.locked.as_ref().map(|(_, reason)| reason),
    })
}

fn text(instances: &[RegisteredInstance]) -> String {
    if instances.is_empty() {
        return "no worker is registered\n".to_owned();
    }
    let head = ["INSTANCE", "BOT", "TOKEN", "GENERATION", "LAST SEEN", "LOCKED"].map(str::to_owned);
    let row = |instance: &RegisteredInstance| {
        let locked = instance.locked.as_ref().map(|(time, why)| format!("{} {}", rfc3339(*time), shown(why)));
        [
            instance.instance.clone(),
            shown(&instance.bot),
            shown(&instance.token),
            instance.generation.to_string(),
            rfc3339(instance.seen),
            locked.unwrap_or_else(|| "no".to_owned()),
        ]
    };
    table(&std::iter::once(head).chain(instances.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_table_and_a_list() {
        let record = |instance: &str, locked| RegisteredInstance {
            instance: instance.into(),
            token: "jenkins".into(),
            bot: "deployer".into(),
            generation: 7,
            registered: 1_795_348_800,
            seen: 1_795_348_860,
            locked,
        };
        let instances =
            [record("w-1", None), record("w-22", Some((1_795_348_861, "generation_used".to_owned())))];
        assert_eq!(
            text(&instances),
            "INSTANCE  BOT       TOKEN    GENERATION  LAST SEEN             LOCKED\n\
             w-1       deployer  jenkins  7           2026-11-22T12:01:00Z  no\n\
             w-22      deployer  jenkins  7           2026-11-22T12:01:00Z  2026-11-22T12:01:01Z generation_used\n"
        );
        assert_eq!(text(&[]), "no worker is registered\n");
        let locked = json(&instances[1]);
        assert_eq!((&locked["locked"], &locked["last_seen"]), (&json!(true), &json!("2026-11-22T12:01:00Z")));
        assert_eq!(json(&instances[0])["locked"], json!(false));
    }
}
