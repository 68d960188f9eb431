//! The product's modules as the compiler finds them: from `src/lib.rs` along
//! `mod`, without what is compiled for tests alone.

use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, Item, Lit, Meta};

use crate::support::repository;

/// A module, in a file or inside one.
pub struct Module {
    /// `crate::authority::policy`.
    pub path: String,
    /// Below `src`.
    pub file: String,
    pub items: Vec<Item>,
}

/// Every module of the library, and the program's one as `main`.
pub fn modules() -> Vec<Module> {
    let mut found = Vec::new();
    file("crate", Path::new("lib.rs"), Path::new(""), &mut found);
    file("main", Path::new("main.rs"), Path::new(""), &mut found);
    found
}

/// A module of this text.
pub fn module(path: &str, text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let items = syn::parse_file(text).unwrap_or_else(|error| panic!("{error} in {text}")).items;
    add(path, &path.replace("::", "/"), Path::new(""), items, &mut found);
    found
}

fn file(path: &str, file: &Path, folder: &Path, into: &mut Vec<Module>) {
    let text = std::fs::read_to_string(repository("src").join(file)).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    add(path, file.to_str().unwrap(), folder, parsed.items, into);
}

fn add(path: &str, in_file: &str, folder: &Path, mut items: Vec<Item>, into: &mut Vec<Module>) {
    items.retain(|item| !is_for_tests(attributes(item)));
    for item in &items {
        let Item::Mod(inner) = item else { continue };
        let name = inner.ident.to_string();
        let (path, below) = (format!("{path}::{name}"), folder.join(&name));
        match &inner.content {
            Some((_, items)) => add(&path, in_file, &below, items.clone(), into),
            None => match given_path(&inner.attrs) {
                Some(given) => {
                    let given = Path::new(in_file).parent().unwrap().join(given);
                    file(&path, &given, &given.with_extension(""), into);
                }
                None => file(&path, &beside(folder, &name), &below, into),
            },
        }
    }
    into.push(Module { path: path.to_owned(), file: in_file.to_owned(), items });
}

fn beside(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(format!("{name}.rs"));
    if repository("src").join(&plain).is_file() { plain } else { folder.join(name).join("mod.rs") }
}

/// `#[path = "…"]`.
fn given_path(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// `#[cfg(test)]`, alone or with more conditions.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string().replace(' ', "");
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test,"))
            || list.path.is_ident("test")
    })
}

/// The attributes of any item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
