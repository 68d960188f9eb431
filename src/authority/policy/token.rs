//! Join tokens: which join method, configured how, makes a job which bot.

use super::JoinToken;
use super::origin::Origin;
use super::section::Section;
use crate::document::{self, Mistake, Node, Value};
use crate::join::verify::Verifier;
use crate::join::{self, method::Method};
use crate::text::shown;

/// The most requests that may use one proof.
const MAX_USES: u32 = 100;

/// The name of a token's bot, to be resolved.
pub(super) struct BotName<'a> {
    /// The name.
    pub(super) name: &'a str,
    /// Its node.
    pub(super) node: &'a Node,
}

/// Reads a token's `spec`: no token where there is no verifier for it, but the
/// name of its bot all the same.
pub(super) fn read<'a>(
    name: String,
    origin: Origin,
    spec: &'a Node,
    mistakes: &mut Vec<Mistake>,
) -> (Option<JoinToken>, Option<BotName<'a>>) {
    let Some(mut spec) = Section::open(spec, "the token's `spec`", mistakes) else { return (None, None) };
    if let Some(node) = spec.need("roles") {
        // Teleport's tokens admit nodes and proxies too; here there are bots alone.
        let is_bot = node.texts("roles").is_ok_and(|roles| roles == ["Bot"]);
        if !is_bot {
            spec.mistake(Mistake::new(node.place, "`roles` of a token must be [Bot]"));
        }
    }
    let bot = spec
        .need("bot_name")
        .and_then(|node| Some(BotName { name: spec.keep(node.text("bot_name"))?, node }));
    let method = spec.need("join_method").and_then(|node| spec.keep(find_method(node)));
    let mut verifier = None;
    // Teleport's tokens of some methods have their rules directly in the `spec`.
    let beside = method.filter(|method| method.takes_rules_beside).and_then(|_| spec.take("allow"));
    let beside = beside.map(|rules| {
        let key = document::Key { place: rules.place, text: "allow".to_owned() };
        Node { place: rules.place, value: Value::Map(vec![(key, rules.clone())]) }
    });
    for other in join::METHODS {
        let section = spec.take(other.name);
        match (section, method) {
            (section, Some(method)) if method.name == other.name => {
                let place = spec.place();
                verifier = match (section, &beside) {
                    (Some(_), Some(rules)) => {
                        let both = format!("the token has both `allow` and `{}`", method.name);
                        spec.mistake(Mistake::new(rules.place, both).hint("keep one of them"));
                        None
                    }
                    (section, beside) => spec.keep(configure(method, section.or(beside.as_ref()), place)),
                };
            }
            // Rules that somebody wrote and that nobody would apply.
            (Some(section), Some(method)) => spec.mistake(
                Mistake::new(section.place, format!("`{}` is not the section of this token", other.name))
                    .hint(format!("its `join_method` is `{0}`, so its section is `{0}`", method.name)),
            ),
            _ => {}
        }
    }
    let max_uses = spec.read("max_uses", |node, _| max_uses(node, verifier.as_deref())).unwrap_or(1);
    spec.finish();
    let token = match (method, verifier, &bot) {
        (Some(method), Some(verifier), Some(bot)) => {
            Some(JoinToken { name, origin, bot: bot.name.to_owned(), method, verifier, max_uses })
        }
        _ => None,
    };
    (token, bot)
}

/// How many requests may use one proof. Where proofs are bound to the request's
/// keys, a job gets another for each, and there is nothing to count.
fn max_uses(node: &Node, verifier: Option<&dyn Verifier>) -> Result<u32, Mistake> {
    let most = i64::from(MAX_USES);
    let uses = match node.value {
        Value::Int(uses) if (1..=most).contains(&uses) => u32::try_from(uses).unwrap_or(1),
        _ => {
            return Err(Mistake::new(
                node.place,
                format!("`max_uses` must be a number from 1 to {MAX_USES}"),
            ));
        }
    };
    if uses > 1 && verifier.is_some_and(|verifier| !verifier.takes_unbound()) {
        return Err(Mistake::new(
            node.place,
            "`max_uses` is for proofs that are not bound to keys, and this token takes no others",
        )
        .hint("leave it out: each request of a job brings a proof of its own"));
    }
    Ok(uses)
}

fn configure(
    method: &'static Method,
    section: Option<&Node>,
    place: document::Place,
) -> Result<Box<dyn Verifier>, Mistake> {
    let name = method.name;
    if let Some(section) = section {
        return (method.configure)(section.mapping(&format!("`{name}`"))?);
    }
    // A method that needs no fields needs no section; any other says what is missing.
    let empty = Node { place, value: Value::Null };
    (method.configure)(empty.mapping(&format!("`{name}`"))?).map_err(|mistake| {
        Mistake::new(place, format!("the token lacks its section `{name}`")).hint(mistake.message)
    })
}

fn find_method(node: &Node) -> Result<&'static Method, Mistake> {
    let name = node.text("join_method")?;
    join::find(name).ok_or_else(|| {
        let names = join::names();
        let mistake = Mistake::new(node.place, format!("there is no join method `{}`", shown(name)));
        match document::nearest(name, &names) {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.hint(format!("there are: {}", names.join(", "))),
        }
    })
}
