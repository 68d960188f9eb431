//! What one module's text names, as it is written.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, ExprField, ExprMethodCall, FieldPat, ImplItem, Item, ItemMod, Member, ReturnType, Type,
};
use syn::{UseTree, Visibility};

use super::tree::{attributes, is_for_tests};

/// The segments of a path, `super` and `crate` among them.
pub type Written = Vec<String>;

/// A type, as far as others can reach through it.
#[derive(Clone, Default)]
pub struct Reached {
    /// What an alias stands for.
    pub alias: Vec<Written>,
    /// Fields and methods that others can name, and the types behind them.
    pub members: BTreeMap<String, Vec<Written>>,
}

/// The names in one module's text.
#[derive(Clone, Default)]
pub struct Names {
    pub paths: Vec<Written>,
    /// What `use` and `extern crate` bring in, under this name.
    pub imports: BTreeMap<String, Vec<Written>>,
    pub globs: Vec<Written>,
    /// Its own items.
    pub items: BTreeMap<String, Reached>,
    /// Fields and methods that it uses, of whatever.
    pub members: BTreeSet<String>,
    /// What this reader does not understand.
    pub odd: Vec<String>,
}

impl Names {
    pub fn of(items: &[Item]) -> Self {
        let mut names = Self::default();
        for item in items {
            if !matches!(item, Item::Mod(_)) {
                names.declare(item);
                names.visit_item(item);
            }
        }
        names
    }

    /// Every word in its paths.
    pub fn words(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().chain(self.imports.values().flatten()).chain(&self.globs).flatten()
    }

    fn declare(&mut self, item: &Item) {
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Impl(item) => {
                if let (None, Type::Path(of)) = (&item.trait_, &*item.self_ty) {
                    let name = of.path.segments.last().unwrap().ident.to_string();
                    let reached = self.items.entry(name).or_default();
                    for item in &item.items {
                        if let ImplItem::Fn(method) = item
                            && !is_private(&method.vis)
                            && let ReturnType::Type(_, ty) = &method.sig.output
                        {
                            reached.members.insert(method.sig.ident.to_string(), paths_in(ty));
                        }
                    }
                }
                return;
            }
            _ => return,
        };
        let reached = self.items.entry(name.to_string()).or_default();
        match item {
            Item::Type(item) => reached.alias = paths_in(&item.ty),
            Item::Struct(item) => {
                for (place, field) in
                    item.fields.iter().enumerate().filter(|(_, field)| !is_private(&field.vis))
                {
                    let name = field.ident.as_ref().map_or_else(|| place.to_string(), ToString::to_string);
                    reached.members.insert(name, paths_in(&field.ty));
                }
            }
            _ => {}
        }
    }

    fn import(&mut self, tree: &UseTree, mut before: Written) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before.clone());
                }
            }
            UseTree::Glob(_) => self.globs.push(before),
            UseTree::Name(name) if name.ident == "self" => {
                let name = before.last().unwrap().clone();
                self.imports.entry(name).or_default().push(before);
            }
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                self.imports.entry(name.ident.to_string()).or_default().push(before);
            }
            UseTree::Rename(name) => {
                if name.ident != "self" {
                    before.push(name.ident.to_string());
                }
                self.imports.entry(name.rename.to_string()).or_default().push(before);
            }
        }
    }

    /// Paths among tokens that nobody has parsed: those of macros and attributes.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Written::new();
        // Colons since the last name.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    colons = 0;
                    self.tokens(group.stream());
                }
                TokenTree::Literal(literal) => {
                    self.end(&mut path);
                    self.quoted(&literal.to_string());
                }
                TokenTree::Punct(punct) => {
                    if punct.as_char() == '!'
                        && punct.spacing() == Spacing::Alone
                        && let Some(name) = path.last_mut()
                    {
                        name.push('!');
                    }
                    self.end(&mut path);
                    colons = 0;
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Written) {
        match path.as_slice() {
            [] => {}
            // A field or a method, as often as anything else.
            [one] if !one.ends_with('!') => drop(self.members.insert(one.clone())),
            _ => self.paths.push(path.clone()),
        }
        path.clear();
    }

    /// `#[serde(with = "crate::text")]`.
    fn quoted(&mut self, literal: &str) {
        let text = literal.trim_matches('"');
        let is_path = |text: &str| {
            text.split("::").all(|part| {
                syn::parse_str::<syn::Ident>(part).is_ok() || ["crate", "super", "self"].contains(&part)
            })
        };
        if text.contains("::") && is_path(text) {
            self.paths.push(text.split("::").map(str::to_owned).collect());
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.odd.push(format!("a module inside a function: {}", module.ident));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, Written::new());
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let name = item.ident.to_string();
        let path = if name == "self" { "crate".to_owned() } else { name.clone() };
        let name = item.rename.as_ref().map_or(name, |(_, rename)| rename.to_string());
        self.imports.entry(name).or_default().push(vec![path]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if call.path.is_ident("include") {
            self.odd.push("include!".to_owned());
        }
        let mut path: Written = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        path.last_mut().unwrap().push('!');
        self.paths.push(path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    // Who may see it is no use of them.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_expr_field(&mut self, field: &'ast ExprField) {
        self.visit_member_name(&field.member);
        visit::visit_expr_field(self, field);
    }

    fn visit_field_pat(&mut self, field: &'ast FieldPat) {
        self.visit_member_name(&field.member);
        visit::visit_field_pat(self, field);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        self.members.insert(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }
}

impl Names {
    fn visit_member_name(&mut self, member: &Member) {
        let name = match member {
            Member::Named(name) => name.to_string(),
            Member::Unnamed(place) => place.index.to_string(),
        };
        self.members.insert(name);
    }
}

fn is_private(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Inherited)
}

/// The paths in a type.
fn paths_in(ty: &Type) -> Vec<Written> {
    let mut names = Names::default();
    names.visit_type(ty);
    names.paths
}
