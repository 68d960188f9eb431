//! Files that name one another, in a circle: neither can be read without the
//! other.

use std::collections::{BTreeMap, BTreeSet};

use super::meaning::{Meaning, Target};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Rooms in which there still are circles. One that has none any more leaves this list.
const KNOWN: &[&str] = &[];

/// Which file names items of which; `lib.rs` is the map of them all.
fn imports(meaning: &Meaning) -> Graph {
    let file = |module: &str| meaning.modules[module].0.clone();
    let mut graph = Graph::new();
    for module in meaning.modules.keys() {
        let own = file(module);
        let named = meaning.named(module).into_iter().filter_map(|named| match named.target {
            Target::Item(of, _) if !named.is_reached => Some(file(&of)),
            _ => None,
        });
        let named: Vec<String> = named.filter(|other| *other != own && *other != "lib.rs").collect();
        graph.entry(own).or_default().extend(named);
    }
    graph
}

/// Groups of files that all lead to one another.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let leads_to: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|file| (file, behind(graph, file))).collect();
    let mut found = BTreeSet::new();
    for (file, behind) in &leads_to {
        let group: Vec<String> = behind
            .iter()
            .filter(|other| leads_to[**other].contains(*file))
            .map(|other| (*other).clone())
            .collect();
        if !group.is_empty() {
            found.insert(group);
        }
    }
    found.into_iter().collect()
}

/// Everything that a file leads to.
fn behind<'a>(graph: &'a Graph, file: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<&String> = graph[file].iter().collect();
    while let Some(next) = waiting.pop() {
        if found.insert(next) {
            waiting.extend(&graph[next]);
        }
    }
    found
}

#[test]
fn no_files_name_one_another_in_a_circle() {
    let graph = imports(Meaning::product());
    let found = circles(&graph);
    let is_known = |circle: &[String]| KNOWN.contains(&room(circle).as_str());
    let new: Vec<String> =
        found.iter().filter(|circle| !is_known(circle)).map(|circle| told(&graph, circle)).collect();
    assert!(new.is_empty(), "new circles:\n{}", new.join("\n"));
    let gone: Vec<_> =
        KNOWN.iter().filter(|known| !found.iter().any(|circle| room(circle) == **known)).collect();
    assert!(gone.is_empty(), "no circles any more, so that they leave the list: {gone:?}");
}

/// What all its files are in.
fn room(circle: &[String]) -> String {
    let parts =
        |file: &str| -> Vec<String> { file.trim_end_matches(".rs").split('/').map(str::to_owned).collect() };
    let mut common = parts(&circle[0]);
    for file in circle {
        let same = common.iter().zip(parts(file)).take_while(|(one, other)| *one == other).count();
        common.truncate(same);
    }
    common.join("/")
}

/// The circle with its edges.
fn told(graph: &Graph, circle: &[String]) -> String {
    let edges = circle.iter().map(|file| {
        let to: Vec<&str> =
            graph[file].iter().filter(|other| circle.contains(other)).map(String::as_str).collect();
        format!("  {file} names {}\n", to.join(", "))
    });
    format!("{circle:?}\n{}", edges.collect::<String>())
}

#[test]
fn a_circle_would_be_noticed() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        graph
    };
    assert!(circles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&graph(&[
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "d"),
        ("e", "a"),
        ("f", "g"),
        ("g", "f"),
    ]));
    assert_eq!(found, [vec!["a", "b", "c"], vec!["f", "g"]]);
}
