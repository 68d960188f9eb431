//! Whether the product keeps to what [`super::floors`] allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::floors::{FLOORS, HOMES, PURE, UP};
use super::meaning::{Meaning, Named, Target};

/// A room, and what it may name.
struct Room {
    name: &'static str,
    allowed: Vec<&'static str>,
}

fn rooms() -> impl Iterator<Item = &'static Room> {
    static ROOMS: LazyLock<Vec<Room>> = LazyLock::new(|| {
        let mut rooms: Vec<Room> = Vec::new();
        for line in FLOORS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let names = match line.split_once(": ").or_else(|| line.strip_suffix(':').map(|name| (name, "")))
            {
                Some((name, names)) => {
                    rooms.push(Room { name, allowed: Vec::new() });
                    names
                }
                None => line,
            };
            rooms.last_mut().unwrap().allowed.extend(names.split_whitespace());
        }
        rooms
    });
    ROOMS.iter()
}

/// Whether `path` is `prefix` or below it.
pub fn is_under(path: &str, prefix: &str) -> bool {
    path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
}

/// Without `crate::`.
fn short(module: &str) -> &str {
    module.strip_prefix("crate::").unwrap_or(module)
}

/// The room that a module is in: the innermost.
fn room_of(module: &str) -> Option<&'static Room> {
    rooms().filter(|room| is_under(short(module), room.name)).max_by_key(|room| room.name.len())
}

/// Every violation in a module, told.
pub fn violations(meaning: &Meaning, module: &str) -> Vec<String> {
    let (file, names) = &meaning.modules[module];
    let Some(room) = room_of(module) else {
        return if module == "crate" {
            Vec::new()
        } else {
            vec![format!("{module} is in no room of FLOORS")]
        };
    };
    let odd = names.odd.iter().map(|odd| format!("{file}: {odd} is not understood"));
    let named =
        meaning.named(module).into_iter().filter_map(|named| Some((wrong(room, &named)?, named.written)));
    // Each once, though a path follows its `use`.
    let named: BTreeMap<String, String> = named.collect();
    let told =
        named.into_iter().map(|(what, written)| format!("{file} ({}) names {what}: `{written}`", room.name));
    odd.chain(told).collect()
}

/// What is not allowed to this room in what it names.
fn wrong(room: &Room, named: &Named) -> Option<String> {
    // A re-export is a name of the module that re-exports, whatever is behind it.
    if let Some(module) = named.through.iter().find(|module| !may_enter(room, module) && *module != "crate") {
        return Some(format!("{module}, which re-exports it"));
    }
    match &named.target {
        Target::Outside(path) => outside(room, path).then(|| path.clone()),
        Target::Module(module) => {
            let inside =
                rooms().any(|other| is_under(other.name, short(module)) && may_name(room, other.name, None));
            (module != "crate" && !inside && !may_enter(room, module)).then(|| module.clone())
        }
        Target::Item(module, _) if module == "crate" => None,
        Target::Item(module, item) => {
            (!may_name(room, module, Some(item))).then(|| format!("{module}::{item}"))
        }
    }
}

/// Whether a room may name something in this module, be it one item of it.
fn may_enter(room: &Room, module: &str) -> bool {
    may_name(room, module, None)
}

/// Whether a room may name this item of that module; or anything at all in it.
fn may_name(room: &Room, module: &str, item: Option<&str>) -> bool {
    let Some(other) = room_of(module) else { return false };
    let module = short(module);
    other.name == room.name
        || UP.contains(&(room.name, other.name))
        || room.allowed.iter().any(|allowed| {
            // A room, a module in one, or an item: by its name, wherever in its room it stands.
            let is_part = is_under(allowed, other.name) && *allowed != other.name;
            let is_item = |item: &str| allowed.rsplit_once("::").is_some_and(|(_, name)| name == item);
            *allowed == other.name
                || (is_part
                    && room_named(allowed).is_none()
                    && (is_under(module, allowed) || item.is_none_or(is_item)))
        })
}

fn room_named(name: &str) -> Option<&'static Room> {
    rooms().find(|room| room.name == name)
}

/// Whether a path into another crate is not allowed.
fn outside(room: &Room, path: &str) -> bool {
    let homeless = HOMES
        .iter()
        .any(|(what, homes)| is_under(path, what) && !homes.iter().any(|home| is_under(room.name, home)));
    let impure = PURE.iter().any(|(pure, allowed)| {
        *pure == room.name && is_outside(path) && !allowed.iter().any(|allowed| is_under(path, allowed))
    });
    homeless || impure
}

/// Whether a path begins with the name of another crate; many begin with a type's or a variable's.
fn is_outside(path: &str) -> bool {
    let crates = ["std", "core", "alloc", "tokio"];
    let first = path.split("::").next().unwrap_or_default();
    let manifest = include_str!("../../../Cargo.toml");
    let is_dependency =
        || manifest.lines().any(|line| line.replace('-', "_").starts_with(&format!("{first} = ")));
    path.contains("::") && (crates.contains(&first) || is_dependency())
}

#[test]
fn every_room_names_what_it_may() {
    let meaning = Meaning::product();
    let wrong: Vec<String> = meaning.modules.keys().flat_map(|module| violations(meaning, module)).collect();
    assert!(wrong.is_empty(), "tests/it/architecture/floors.rs does not allow this:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_stand_on_one_another() {
    let names: Vec<&str> = rooms().map(|room| room.name).collect();
    for (place, Room { name, allowed }) in rooms().enumerate() {
        for other in allowed {
            let below = names[..place].iter().any(|below| is_under(other, below));
            assert!(below, "{name} may name {other}, which does not stand below it");
        }
        assert!(allowed.is_sorted_by_key(|name| name.to_lowercase()), "{name}: {allowed:?} is not sorted");
    }
    let unique: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "a room stands twice");
}

/// What is allowed is used; so the list tells what is.
#[test]
fn nothing_is_allowed_that_nobody_needs() {
    let meaning = Meaning::product();
    let mut unused = Vec::new();
    for Room { name, allowed } in rooms() {
        let mine =
            meaning.modules.keys().filter(|module| room_of(module).is_some_and(|room| room.name == *name));
        let named: Vec<Named> = mine.flat_map(|module| meaning.named(module)).collect();
        assert!(meaning.modules.keys().any(|module| short(module) == *name), "there is no room {name}");
        let up = UP.iter().filter(|(from, _)| from == name).map(|(_, to)| to);
        for other in allowed.iter().chain(up) {
            let only = Room { name: "", allowed: vec![*other] };
            let uses = |named: &Named| match &named.target {
                Target::Item(module, item) => {
                    may_name(&only, module, Some(item))
                        || named.through.iter().any(|module| may_enter(&only, module))
                }
                _ => false,
            };
            if !named.iter().any(uses) {
                unused.push(format!("{name} does not name {other}"));
            }
        }
    }
    assert!(unused.is_empty(), "tests/it/architecture/floors.rs allows too much:\n{}", unused.join("\n"));
}
