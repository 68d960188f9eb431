//! What names mean: which module an item stands in, through aliases, globs,
//! re-exports and `super`; and what is reached through fields and methods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::tree::{self, Module};
use super::written::{Names, Written};

/// No chain of re-exports is longer.
const DEPTH: usize = 16;

/// What a path ends at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Module(String),
    /// The module that it stands in, and its name.
    Item(String, String),
    /// In another crate; or nothing that could be found.
    Outside(String),
}

/// One thing that a module names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// As it is written.
    pub written: String,
    pub target: Target,
    /// Modules whose re-exports lead there.
    pub through: BTreeSet<String>,
    /// Not by its name: through a field or a method of something named.
    pub is_reached: bool,
}

/// All modules: their file, and their names.
#[derive(Clone)]
pub struct Meaning {
    pub modules: BTreeMap<String, (String, Names)>,
}

impl Meaning {
    /// The product's; read once.
    pub fn product() -> &'static Self {
        static PRODUCT: LazyLock<Meaning> = LazyLock::new(|| {
            let mut product = Meaning { modules: BTreeMap::new() };
            product.add(&tree::modules());
            product
        });
        &PRODUCT
    }

    pub fn add(&mut self, modules: &[Module]) {
        let entry = |module: &Module| (module.path.clone(), (module.file.clone(), Names::of(&module.items)));
        self.modules.extend(modules.iter().map(entry));
    }

    /// Everything that a module names.
    pub fn named(&self, module: &str) -> BTreeSet<Named> {
        let (_, names) = &self.modules[module];
        let imports = names.imports.values().flatten();
        let mut found: BTreeSet<Named> = names
            .paths
            .iter()
            .chain(imports)
            .chain(&names.globs)
            .flat_map(|path| self.follow(module, path, ""))
            .collect();
        self.reach(names, &mut found);
        found.retain(|named| !matches!(&named.target, Target::Item(of, _) if of == module));
        found
    }

    fn follow(&self, from: &str, path: &Written, member: &str) -> Vec<Named> {
        let is_reached = !member.is_empty();
        let mut through = BTreeSet::new();
        let mut targets = self.resolve(from, path, &mut through, DEPTH);
        // A function of a module's name; what is in the module is named by a path of its own.
        if targets.iter().any(|target| matches!(target, Target::Item(..))) {
            targets.retain(|target| !matches!(target, Target::Module(_)));
        }
        let written = path.join("::") + member;
        let mut found: Vec<Named> = Vec::new();
        for target in targets {
            if let Target::Item(module, name) = &target
                && let Some(item) = self.modules[module].1.items.get(name)
            {
                for alias in item.alias.iter().filter(|alias| **alias != [name.clone()]) {
                    through.insert(module.clone());
                    for target in self.resolve(module, alias, &mut through, DEPTH) {
                        found.push(Named {
                            written: written.clone(),
                            target,
                            through: through.clone(),
                            is_reached,
                        });
                    }
                }
            }
            found.push(Named { written: written.clone(), target, through: through.clone(), is_reached });
        }
        found
    }

    /// Adds what is reached through the members of what is named.
    fn reach(&self, names: &Names, found: &mut BTreeSet<Named>) {
        let mut waiting: Vec<Target> = found.iter().map(|named| named.target.clone()).collect();
        let mut seen: BTreeSet<Target> = waiting.iter().cloned().collect();
        while let Some(target) = waiting.pop() {
            let Target::Item(module, name) = target else { continue };
            let Some(item) = self.modules[&module].1.items.get(&name) else { continue };
            for (member, types) in item.members.iter().filter(|(member, _)| names.members.contains(*member)) {
                for named in
                    types.iter().flat_map(|path| self.follow(&module, path, &format!(" of {name}.{member}")))
                {
                    if seen.insert(named.target.clone()) {
                        waiting.push(named.target.clone());
                        found.insert(named);
                    }
                }
            }
        }
    }

    fn resolve(
        &self,
        from: &str,
        path: &[String],
        through: &mut BTreeSet<String>,
        depth: usize,
    ) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return vec![Target::Module(from.to_owned())] };
        if depth == 0 || first == "Self" {
            return Vec::new();
        }
        let root = from.split("::").next().unwrap().to_owned();
        let mut found = match first.as_str() {
            "crate" => vec![Target::Module(root)],
            "machine_id" => vec![Target::Module("crate".to_owned())],
            "self" => vec![Target::Module(from.to_owned())],
            "super" => vec![Target::Module(parent(from))],
            name => self.look_up(from, name, through, depth - 1),
        };
        if found.is_empty() {
            return vec![Target::Outside(path.join("::"))];
        }
        for segment in rest {
            // A function may have a module's name, and leads nowhere.
            if found.iter().any(|target| matches!(target, Target::Module(_))) {
                found.retain(|target| !matches!(target, Target::Item(..)));
            }
            let step = |target: Target| match target {
                Target::Module(module) if segment == "super" => vec![Target::Module(parent(&module))],
                Target::Module(module) => {
                    let found = self.look_up(&module, segment, through, depth - 1);
                    if !found.is_empty() && !self.declares(&module, segment) && module != from {
                        through.insert(module.clone());
                    }
                    if found.is_empty() { vec![Target::Item(module, segment.clone())] } else { found }
                }
                Target::Item(..) => vec![target],
                Target::Outside(path) => vec![Target::Outside(format!("{path}::{segment}"))],
            };
            found = found.into_iter().flat_map(step).collect();
        }
        found
    }

    fn declares(&self, module: &str, name: &str) -> bool {
        self.modules.contains_key(&format!("{module}::{name}"))
            || self.modules[module].1.items.contains_key(name)
    }

    /// What a name is in a module.
    fn look_up(&self, module: &str, name: &str, through: &mut BTreeSet<String>, depth: usize) -> Vec<Target> {
        let (_, names) = &self.modules[module];
        let mut found = Vec::new();
        let inner = format!("{module}::{name}");
        if self.modules.contains_key(&inner) {
            found.push(Target::Module(inner));
        }
        if names.items.contains_key(name) {
            found.push(Target::Item(module.to_owned(), name.to_owned()));
        }
        if depth == 0 || !found.is_empty() {
            return found;
        }
        for path in names.imports.get(name).into_iter().flatten() {
            // `use http;` and `use serde::Serialize as serde;` name no import of their own.
            let own = path.first().is_some_and(|first| first == name);
            let targets = if own {
                vec![Target::Outside(path.join("::"))]
            } else {
                self.resolve(module, path, through, depth - 1)
            };
            found.extend(targets);
        }
        if found.is_empty() {
            for glob in &names.globs {
                for target in self.resolve(module, glob, through, depth - 1) {
                    if let Target::Module(inside) = target
                        && inside != module
                    {
                        let inner = self.look_up(&inside, name, through, depth - 1);
                        if !inner.is_empty() && !self.declares(&inside, name) {
                            through.insert(inside);
                        }
                        found.extend(inner);
                    }
                }
            }
        }
        found
    }
}

fn parent(module: &str) -> String {
    module.rsplit_once("::").map_or(module, |(parent, _)| parent).to_owned()
}
