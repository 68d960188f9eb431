//! Whether a policy has already what another would add to it.

use std::collections::BTreeSet;

use super::resources::{JoinToken, LOGINS, Policy, Role};

impl Policy {
    /// The join token that lets in already whom the one of `new` lets in, for a bot with the same logins at least:
    /// its rules are the same, apart from whether they have the fields that are `aside`.
    pub fn already(&self, new: &Self, aside: &[&str]) -> Option<&JoinToken> {
        let wanted = new.tokens().next()?;
        let is_same = |token: &&JoinToken| {
            token.method.name == wanted.method.name
                && token.verifier.fixed() == wanted.verifier.fixed()
                && (!token.verifier.admits_all() || token.name == wanted.name)
                && rules(token, aside).is_superset(&rules(wanted, aside))
                && self.logins(token).is_superset(&new.logins(wanted))
        };
        self.tokens().filter(is_same).min_by(|a, b| a.name.cmp(&b.name))
    }

    /// Every login that jobs of that join token can get somewhere.
    fn logins(&self, token: &JoinToken) -> BTreeSet<String> {
        let bot = self.bots.get(&token.bot);
        let names = bot.map(|bot| {
            let roles: Vec<&Role> = bot.each_role().filter(|role| !self.needs_mfa(role)).collect();
            bot.names(&roles, &LOGINS)
        });
        names.into_iter().flatten().collect()
    }
}

fn rules(token: &JoinToken, aside: &[&str]) -> BTreeSet<BTreeSet<(String, String)>> {
    let rules = token.verifier.rules().iter().map(|rule| {
        let conditions = rule.conditions.iter().filter(|one| !aside.contains(&one.field.as_str()));
        conditions.map(|one| (one.field.clone(), one.want.shown())).collect()
    });
    rules.collect()
}
