//! Jobs of another cluster: which bot one is here, by the role map of the trusted cluster.

use serde_json::{Map, Value};

use crate::authority::policy::resources::{Bot, JoinToken, MapLine, Origin, Policy, RoleMap};
use crate::denial::{Denial, Reason};
use crate::join::rules::glob;
use crate::join::trusted_cluster;
use crate::text::listed;

/// One line of a role map against a job's claims.
#[derive(Clone, Debug)]
pub struct MapTrial {
    /// Where the line stands.
    pub origin: Origin,
    /// Which of the other cluster's roles it takes.
    pub remote: String,
    /// The roles of this cluster that it gives.
    pub local: Vec<String>,
    /// Those of the job that it takes.
    pub taken: Vec<String>,
}

impl JoinToken {
    /// What it is.
    pub fn noun(&self) -> &'static str {
        if self.map.is_some() { "trusted cluster" } else { "join token" }
    }

    /// The bot that a job becomes. One of another cluster becomes its own, which its claims name, where they are verified.
    pub fn bot_of(&self, claims: Option<&Map<String, Value>>) -> Option<String> {
        match self.map {
            None => Some(self.bot.clone()),
            Some(_) => claims.and_then(trusted_cluster::named_bot),
        }
    }

    /// Each line of the role map against these claims, in the order of the file; none where it is no trusted cluster.
    pub fn map_trial(&self, claims: &Map<String, Value>) -> Vec<MapTrial> {
        let roles = trusted_cluster::roles(claims);
        let trial = |line: &MapLine| MapTrial {
            origin: self.origin.at(line.place),
            remote: line.remote.clone(),
            local: line.local.iter().map(|(name, _)| name.clone()).collect(),
            taken: roles
                .iter()
                .filter(|role| glob(&line.remote, role))
                .map(|role| (*role).to_owned())
                .collect(),
        };
        self.map.iter().flat_map(|map| &map.lines).map(trial).collect()
    }
}

impl Policy {
    /// The bot that a job with these claims is for one request: nobody's here, with the roles that the map gives, and
    /// without traits.
    pub(crate) fn remote_bot(
        &self,
        cluster: &JoinToken,
        map: &RoleMap,
        claims: &Map<String, Value>,
    ) -> Result<Bot, Denial> {
        let mut bot = Bot::new(trusted_cluster::bot(claims), cluster.origin.clone());
        let lines = cluster.map_trial(claims);
        let given = lines.iter().filter(|line| !line.taken.is_empty()).flat_map(|line| &line.local);
        bot.roles.extend(given.filter_map(|name| self.roles.get(name)).cloned());
        bot.roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        bot.roles.dedup_by(|a, b| a.name == b.name);
        bot.max_ttl = map.max_ttl.unwrap_or(bot.max_ttl);
        if !bot.roles.is_empty() {
            return Ok(bot);
        }
        let told =
            format!("the proof has the roles {}", listed(trusted_cluster::roles(claims).into_iter(), 16));
        let mut story = format!(
            "no line of the role map of trusted cluster `{}` takes any of them: {told}",
            cluster.name
        );
        for MapTrial { origin, remote, local, .. } in lines {
            story.push_str(&format!("\nline at {origin}: `{remote}` would give {}", local.join(", ")));
        }
        Err(Denial::new(Reason::RoleNotMapped, story).tell(told))
    }
}
