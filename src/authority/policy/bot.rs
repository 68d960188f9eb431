//! Bots: who a job becomes; the roles it holds and the traits that fill their templates.

use std::sync::Arc;

use super::field;
use super::login::{LOGIN_SHAPE, Template, is_login, is_trait_name};
use super::origin::Origin;
use super::role::{MAX_PRINCIPALS, Role, read_ttl};
use super::section::Section;
use crate::document::{Mistake, Node, Place};
use crate::text::shown;

/// The `max_session_ttl` of a bot that has none, in seconds.
const DEFAULT_TTL: u64 = 12 * 3600;
/// The longest value of a trait.
const MAX_VALUE: usize = 256;
/// The longest name of a bot: with `bot:` in front it must fit into an X.509
/// common name (RFC 5280, `ub-common-name` is 64).
pub(super) const MAX_NAME: usize = 60;

/// A bot.
#[derive(Debug)]
pub(super) struct Bot {
    /// Its name.
    pub(super) name: String,
    /// Where it stands.
    pub(super) origin: Origin,
    /// The roles that it holds, by name; filled once all files are read.
    pub(super) roles: Vec<Arc<Role>>,
    /// The longest life of its certificates, in seconds.
    pub(super) max_ttl: u64,
    traits: Vec<Trait>,
}

#[derive(Debug)]
struct Trait {
    name: String,
    values: Vec<(String, Place)>,
}

/// A bot's `spec.roles`, to be resolved.
pub(super) type RoleNames = Vec<(String, Place)>;

impl Bot {
    /// Reads `spec`.
    pub(super) fn read(
        name: String,
        origin: Origin,
        spec: &Node,
        mistakes: &mut Vec<Mistake>,
    ) -> (Self, RoleNames) {
        let mut bot = Self { name, origin, roles: Vec::new(), max_ttl: DEFAULT_TTL, traits: Vec::new() };
        let mut names = RoleNames::new();
        let Some(mut spec) = Section::open(spec, "the bot's `spec`", mistakes) else { return (bot, names) };
        let before = spec.mistakes().len();
        for (role, place) in spec.texts("roles") {
            if names.iter().any(|(name, _)| name == role) {
                spec.mistake(Mistake::new(place, format!("the role `{}` is listed twice", shown(role))));
            } else {
                names.push((role.to_owned(), place));
            }
        }
        if names.is_empty() && spec.mistakes().len() == before {
            let place = spec.place();
            spec.mistake(
                Mistake::new(place, "the bot has no `roles`").hint("without a role it can have nothing"),
            );
        }
        bot.max_ttl = spec.read("max_session_ttl", read_ttl).unwrap_or(bot.max_ttl);
        for node in spec.read("traits", Node::list).unwrap_or_default() {
            if let Some(one) = read_trait(node, spec.mistakes()) {
                if bot.traits.iter().any(|other| other.name == one.name) {
                    spec.mistake(Mistake::new(
                        node.place,
                        format!("the trait `{}` is listed twice", one.name),
                    ));
                }
                bot.traits.push(one);
            }
        }
        spec.finish();
        (bot, names)
    }

    /// The role of that name, if the bot holds it.
    pub(super) fn role(&self, name: &str) -> Option<&Role> {
        let index = self.roles.binary_search_by(|role| role.name.as_str().cmp(name)).ok()?;
        self.roles.get(index).map(AsRef::as_ref)
    }

    /// Whether any role of the bot denies that login, asked for or not: if only
    /// those asked for counted, a job could shed a deny by not asking for its role.
    pub(super) fn denies(&self, login: &str) -> bool {
        self.roles.iter().any(|role| role.denies(login))
    }

    /// The logins that a role gives this bot, before anything is denied. A
    /// trait that the bot does not have gives none.
    pub(super) fn each_login(&self, role: &Role, mut found: impl FnMut(&str)) {
        for template in &role.logins {
            match template {
                Template::Literal(login) => found(login),
                Template::Trait { prefix, name, suffix } => {
                    for (value, _) in self.trait_values(name) {
                        found(&Template::fill(prefix, value, suffix));
                    }
                }
            }
        }
    }

    /// Checks what each role makes of the traits, once the roles are known;
    /// after that every login is one.
    pub(super) fn check(&self, mistakes: &mut Vec<Mistake>) {
        for role in &self.roles {
            field::check(self, role, mistakes);
            let mut logins = 0_usize;
            for template in &role.logins {
                let Template::Trait { prefix, name, suffix } = template else {
                    logins += 1;
                    continue;
                };
                for (value, place) in self.trait_values(name) {
                    logins += 1;
                    let login = Template::fill(prefix, value, suffix);
                    if !is_login(&login) {
                        let made = format!("the trait `{name}` makes a login of `{}`", shown(value));
                        let message = format!("{made} in role `{}`, which cannot be one", role.name);
                        mistakes.push(Mistake::new(*place, message).hint(LOGIN_SHAPE));
                    }
                }
            }
            if logins.saturating_mul(role.reach.width()) > MAX_PRINCIPALS {
                let message = format!(
                    "the role `{}` gives the bot `{}` more than {MAX_PRINCIPALS} principals",
                    role.name, self.name
                );
                mistakes.push(
                    Mistake::new(self.origin.place, message)
                        .hint("a certificate holds few: use fewer logins or labels, or split the role"),
                );
            }
        }
    }

    /// Every trait: its name, its values and their places.
    pub(super) fn traits(&self) -> impl Iterator<Item = (&str, &[(String, Place)])> {
        self.traits.iter().map(|one| (one.name.as_str(), one.values.as_slice()))
    }

    /// The values of a trait and their places; none where the bot does not have it.
    pub(super) fn trait_values(&self, name: &str) -> &[(String, Place)] {
        self.traits.iter().find(|one| one.name == name).map_or(&[], |one| &one.values)
    }
}

fn read_trait(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<Trait> {
    let mut section = Section::open(node, "a trait", mistakes)?;
    let name = section.need("name").and_then(|node| section.keep(trait_name(node)));
    let listed = section.texts("values");
    let mut values = Vec::with_capacity(listed.len());
    for (value, place) in listed {
        if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            let message = format!("`{}` cannot be the value of a trait", shown(value));
            let hint = format!("1 to {MAX_VALUE} bytes without control characters");
            section.mistake(Mistake::new(place, message).hint(hint));
        } else if !values.iter().any(|(other, _)| other == value) {
            values.push((value.to_owned(), place));
        }
    }
    section.finish();
    Some(Trait { name: name?, values })
}

fn trait_name(node: &Node) -> Result<String, Mistake> {
    let name = node.text("name")?;
    if is_trait_name(name) {
        return Ok(name.to_owned());
    }
    let message = format!("`{}` cannot be the name of a trait", shown(name));
    Err(Mistake::new(node.place, message).hint("letters, digits, `_` and `-`, at most 64"))
}
