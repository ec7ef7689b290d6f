//! README and docs: every link leads somewhere, every page can be reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

fn root() -> PathBuf {
    normal(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Every page by its path: those at the root, and those in `docs`.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root().join("docs")];
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.insert(root().join(name), fs::read_to_string(root().join(name)).unwrap());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                pages.insert(path, text);
            }
        }
    }
    pages
}

/// The lines that are prose, with their numbers: code blocks are left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((index + 1, line))
    })
}

/// The targets of a line's links. What stands between backticks is code.
fn links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(['`', ']']) {
        if rest[at..].starts_with('`') {
            let Some(end) = rest[at + 1..].find('`') else { break };
            rest = &rest[at + 1 + end + 1..];
            // The text of a link may be code.
            continue;
        }
        rest = &rest[at + 1..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some(end) = target.find(')')
        {
            found.push(&target[..end]);
            rest = &target[end + 1..];
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut linked = BTreeSet::new();
    for (path, text) in &pages {
        for (line, target) in prose(text).flat_map(|(number, line)| links(line).into_iter().map(move |link| (number, link))) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { path.clone() } else { normal(&path.parent().unwrap().join(file)) };
            let there = match pages.get(&to) {
                Some(text) => anchor.is_empty() || anchors(text).contains(anchor),
                None => anchor.is_empty() && to.exists(),
            };
            if !there {
                broken.push(format!("{}:{line}: {target}", path.strip_prefix(root()).unwrap().display()));
            }
            if to != *path {
                linked.insert(to);
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
    let lost: Vec<_> = pages.keys().filter(|page| page.starts_with(root().join("docs")) && !linked.contains(*page)).collect();
    assert!(lost.is_empty(), "no page links to these: {lost:?}");
}
