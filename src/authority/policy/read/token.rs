//! A join token's `spec`: which join method, configured how, makes a job which bot.

use crate::authority::policy::resources::{JoinToken, Origin};
use crate::document::{Key, Mapping, Mistake, Mistakes, Node, Place, Value};
use crate::join::verify::Verifier;
use crate::join::{self, method::Method};
use crate::text::{shown_exactly, which_of};

/// The most requests that may use one proof.
const MAX_USES: u32 = 100;

/// Reads `spec`; the name of the bot and its place are found even where the rest is a mistake.
pub(super) fn read(
    name: String,
    origin: Origin,
    spec: &Node,
    bot: &mut Option<(String, Place)>,
) -> Result<JoinToken, Mistakes> {
    let mut spec = spec.mapping("the token's `spec`")?;
    spec.require("roles", |node, key| match node.texts(key)?.as_slice() {
        [role] if role == "Bot" => Ok(()),
        // Teleport's tokens admit nodes and proxies too; here there are bots alone.
        _ => Err(Mistake::new(node.place, "`roles` of a token must be [Bot]")),
    });
    *bot = spec.require("bot_name", |node, key| Ok::<_, Mistake>((node.text(key)?.to_owned(), node.place)));
    let method = spec.require("join_method", find_method);
    let verifier = match method {
        Some(method) => read_method(method, &mut spec),
        None => {
            for method in join::METHODS {
                spec.take(method.name);
                for (name, _) in method.elsewhere {
                    spec.take(name);
                }
            }
            None
        }
    };
    let max_uses = spec.read("max_uses", |node, _| max_uses(node, verifier.as_deref())).unwrap_or(1);
    let place = spec.place;
    spec.finish()?;
    let (Some(method), Some(verifier), Some((bot, _))) = (method, verifier, bot) else {
        return Err(Mistake::new(place, "the token cannot be read").into());
    };
    Ok(JoinToken { name, origin, bot: bot.clone(), method, verifier, max_uses, map: None })
}

/// The section of the token's method; any other is a mistake.
fn read_method(method: &'static Method, spec: &mut Mapping<'_>) -> Option<Box<dyn Verifier>> {
    // Teleport's tokens of some methods have their rules directly in the `spec`.
    let beside = if method.takes_rules_beside { spec.take("allow") } else { None };
    let mut section = None;
    for other in join::METHODS {
        match spec.take(other.name) {
            found if other.name == method.name => section = found,
            // Rules that somebody wrote and that nobody would apply.
            Some(stray) => spec.mistakes.add(
                Mistake::new(stray.place, format!("`{}` is not the section of this token", other.name))
                    .hint(format!("its `join_method` is `{0}`, so its section is `{0}`", method.name)),
            ),
            None => {}
        }
    }
    // What its rules say is judged by the method that knows them.
    let written = section.and_then(|section| section.mapping(method.name).ok()?.take("issuer"));
    if let Some(node) = written
        && let Ok(issuer) = node.text("issuer")
    {
        spec.mistakes.keep(check_issuer(method, issuer, node.place))?;
    }
    let place = section.map_or(spec.place, |section| section.place);
    let configured = configure(method, section, beside, spec.place);
    let verifier = spec.mistakes.keep(configured)?;
    // One that the section has under another name, as a host perhaps.
    if let (None, Some(issuer)) = (written, verifier.issuer()) {
        spec.mistakes.keep(check_issuer(method, issuer, place))?;
    }
    Some(verifier)
}

/// An issuer that another method knows is that method's: it knows which claims say whose
/// a job is, and what strangers can start.
fn check_issuer(method: &Method, issuer: &str, place: Place) -> Result<(), Mistake> {
    let Some(other) = join::of_issuer(issuer).filter(|other| other.name != method.name) else {
        return Ok(());
    };
    let message = format!("`{}` is an issuer of the join method `{}`", shown_exactly(issuer), other.name);
    Err(Mistake::new(place, message).hint(format!(
        "write `join_method: {0}` with a section `{0}`: it knows whose jobs its claims name, and which events strangers can start",
        other.name
    )))
}

fn configure(
    method: &'static Method,
    section: Option<&Node>,
    beside: Option<&Node>,
    place: Place,
) -> Result<Box<dyn Verifier>, Mistakes> {
    let what = format!("`{}`", method.name);
    match (section, beside) {
        (Some(_), Some(rules)) => {
            let both = format!("the token has both `allow` and {what}");
            Err(Mistake::new(rules.place, both).hint("keep one of them").into())
        }
        (Some(section), None) => (method.configure)(section.mapping_or_empty(&what)?),
        (None, Some(rules)) => {
            let key = Key { place: rules.place, text: "allow".to_owned() };
            let section = Node { place: rules.place, value: Value::Map(vec![(key, rules.clone())]) };
            (method.configure)(section.mapping(&what)?)
        }
        // A method that needs no fields needs no section; any other says what is missing.
        (None, None) => (method.configure)(Mapping::empty(place, &what)).map_err(|mistakes| {
            let lacks = Mistake::new(place, format!("the token lacks its section {what}"));
            lacks.hint(Mistake::from(mistakes).message).into()
        }),
    }
}

/// How many requests may use one proof. Where proofs are bound to the request's
/// keys, a job gets another for each, and there is nothing to count.
fn max_uses(node: &Node, verifier: Option<&dyn Verifier>) -> Result<u32, Mistake> {
    let uses = match node.value {
        Value::Int(uses) => u32::try_from(uses).ok().filter(|uses| (1..=MAX_USES).contains(uses)),
        _ => None,
    };
    let wrong = |message: String| Mistake::new(node.place, format!("`max_uses` {message}"));
    let uses = uses.ok_or_else(|| wrong(format!("must be a number from 1 to {MAX_USES}")))?;
    if uses > 1 && verifier.is_some_and(|verifier| !verifier.takes_unbound()) {
        let why = "is for proofs that are not bound to keys, and this token takes no others";
        let hint = "leave it out: each request of a job brings a proof of its own";
        return Err(wrong(why.to_owned()).hint(hint));
    }
    Ok(uses)
}

fn find_method(node: &Node, key: &str) -> Result<&'static Method, Mistake> {
    let name = node.text(key)?;
    let found = join::find(name).filter(|method| !method.of_cluster);
    found.ok_or_else(|| {
        if join::find(name).is_some() {
            let message = format!("no join token is of the join method `{name}`");
            return Mistake::new(node.place, message)
                .hint(format!("jobs of another cluster come by a resource of their own: `kind: {name}`"));
        }
        Mistake::new(node.place, format!("there is no join method `{}`", shown_exactly(name)))
            .hint(join::elsewhere(name).unwrap_or_else(|| which_of(name, &join::names())))
    })
}
