//! README files and docs: every link leads somewhere, every page can be reached, and what they say
//! of the program's options, the library's errors and its metrics is what the code says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::{Place, repository::PUBLISHED};

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

/// Every page by its path: those at the root, those of the SDKs and the published crates, and those
/// in `docs` and `examples`.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root().join("docs"), root().join("examples")];
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "sdk/python/README.md",
        "sdk/typescript/README.md",
    ]
    .map(Into::into)
    .into();
    paths.extend(PUBLISHED.map(|krate| Path::new("crates").join(krate).join("README.md")));
    for path in paths {
        let path = root().join(path);
        let text = fs::read_to_string(&path).unwrap();
        pages.insert(path, text);
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Packages that an example needs bring pages of their own.
                folders.extend((!path.ends_with("node_modules")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                pages.insert(path, text);
            }
        }
    }
    pages
}

/// The lines that are prose, with their numbers: code blocks are left out.
pub(crate) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
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
pub(crate) fn links(line: &str) -> Vec<&str> {
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
        for (line, target) in prose(text)
            .flat_map(|(number, line)| links(line).into_iter().map(move |link| (number, link)))
        {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() {
                path.clone()
            } else {
                normal(&path.parent().unwrap().join(file))
            };
            let there = match pages.get(&to) {
                Some(text) => anchor.is_empty() || anchors(text).contains(anchor),
                None => anchor.is_empty() && to.exists(),
            };
            if !there {
                broken.push(format!(
                    "{}:{line}: {target}",
                    path.strip_prefix(root()).unwrap().display()
                ));
            }
            if to != *path {
                linked.insert(to);
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
    let lost: Vec<_> = pages
        .keys()
        .filter(|page| page.starts_with(root().join("docs")) && !linked.contains(*page))
        .collect();
    assert!(lost.is_empty(), "no page links to these: {lost:?}");
}

/// The longest line of prose and code, in characters. Tables have no limit.
const LONGEST: usize = 100;

#[test]
fn lines_of_the_documentation_are_short() {
    let mut long = Vec::new();
    for (path, text) in pages() {
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('|'))
        {
            if line.chars().count() > LONGEST {
                long.push(format!(
                    "{}:{}",
                    path.strip_prefix(root()).unwrap().display(),
                    number + 1
                ));
            }
        }
    }
    assert!(
        long.is_empty(),
        "these lines have more than {LONGEST} characters:\n{}",
        long.join("\n")
    );
}

/// The words of a shell command, without their quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)))
            }
            (_, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// What follows the program's name in the commands that a page shows, with the number of the line
/// where each begins.
fn commands(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(command) = line.trim_start().strip_prefix("$ ") else { continue };
        let mut command = command.split(" #").next().unwrap().trim_end().to_owned();
        while let Some(more) = command.strip_suffix('\\') {
            command = format!("{more} {}", lines.next().unwrap().1.trim());
        }
        let words = words(&command);
        let ours = match words.iter().position(|word| word == "profilestore") {
            Some(0) => 1,
            // `cargo run … -- COMMAND`, of the default program.
            _ if words.starts_with(&["cargo".into(), "run".into()])
                && !words.iter().any(|word| word == "-p") =>
            {
                words.iter().position(|word| word == "--").map_or(words.len(), |at| at + 1)
            }
            _ => continue,
        };
        found.push((number + 1, words[ours..].to_vec()));
    }
    found
}

#[test]
fn every_option_that_the_documentation_shows_is_there() {
    let place = Place::new();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for (number, words) in commands(&text) {
            let name =
                words.iter().find(|word| !word.starts_with('-')).cloned().unwrap_or_default();
            let help =
                helps.entry(name.clone()).or_insert_with(|| place.run(&[&name, "--help"]).stdout);
            let options = words
                .iter()
                .filter(|word| word.starts_with("--"))
                .map(|word| word.split('=').next().unwrap());
            let unknown: Vec<_> = options.filter(|option| !help.contains(*option)).collect();
            if help.is_empty() || !unknown.is_empty() {
                let path = path.strip_prefix(root()).unwrap().display().to_string();
                wrong.push(format!("{path}:{number}: profilestore {name} {unknown:?}"));
            }
        }
    }
    assert!(
        helps.len() > 15,
        "the commands of the documentation are not found any more: {:?}",
        helps.keys()
    );
    assert!(wrong.is_empty(), "the program has no such command or option:\n{}", wrong.join("\n"));
}

/// The library's sources, one after the other.
fn sources() -> String {
    let mut text = String::new();
    let mut folders =
        vec![root().join("crates/profilestore/src"), root().join("crates/profilestore-server/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_metric_is_documented() {
    let metrics = |text: &str, before: &str, after: char| -> BTreeSet<String> {
        let names = text.split(before).skip(1).filter_map(|rest| rest.split_once(after));
        names
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.starts_with("profilestore_"))
            .collect()
    };
    let sources = sources();
    let mut in_code = BTreeSet::new();
    for kind in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
        in_code.extend(metrics(&sources, kind, '"'));
    }
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let documented = metrics(&page, "\n| `", '`');
    assert!(in_code.len() > 20);
    assert_eq!(
        documented, in_code,
        "docs/metrics.md (left) and the code (right) name different metrics"
    );
}

#[test]
fn every_kind_of_error_is_documented() {
    let error = fs::read_to_string(root().join("crates/profilestore/src/error.rs")).unwrap();
    let variants = error.split("pub enum ErrorKind {").nth(1).unwrap().split("\n}").next().unwrap();
    let in_code: BTreeSet<&str> = variants
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('/'))
        .filter_map(|line| line.strip_suffix(','))
        .collect();
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    // Another table there has calls in its first column.
    let is_kind = |name: &&str| {
        name.chars().all(char::is_alphanumeric) && name.starts_with(char::is_uppercase)
    };
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).filter(is_kind);
    assert!(in_code.len() > 20);
    assert_eq!(
        rows.collect::<BTreeSet<_>>(),
        in_code,
        "docs/errors.md (left) and the code (right) name different kinds"
    );
}

#[test]
fn every_source_file_that_the_maps_of_the_code_name_is_there() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in ["architecture.md", "code-map.md", "backends.md"] {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
        for (number, line) in text.lines().enumerate() {
            let spans = line.split('`').skip(1).step_by(2);
            for path in spans.filter(|span| span.ends_with(".rs") || span.ends_with('/')) {
                found += 1;
                let from = if path.starts_with("crates/") {
                    root()
                } else {
                    root().join("crates/profilestore/src")
                };
                if !from.join(path).exists() {
                    missing.push(format!("docs/{page}:{}: {path}", number + 1));
                }
            }
        }
    }
    assert!(found > 50);
    assert!(missing.is_empty(), "these files have moved or are gone:\n{}", missing.join("\n"));
}

/// The file or folder that a map of the code names.
fn source(path: &str) -> Option<PathBuf> {
    let below = ["crates/profilestore/src", "", "crates/profilestore-luau/src"];
    below.iter().map(|folder| root().join(folder).join(path)).find(|file| file.exists())
}

/// The text of a file, or of all files of a folder.
fn text_of(path: &Path) -> String {
    if path.is_dir() {
        fs::read_dir(path).unwrap().map(|entry| text_of(&entry.unwrap().path())).collect()
    } else {
        fs::read_to_string(path).unwrap()
    }
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `Session` in `Session::save` is not looked for.
fn last_name(path: &str) -> &str {
    path.rsplit("::").next().unwrap()
}

fn has_word(text: &str, word: &str) -> bool {
    let in_word = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !in_word(before.chars().next_back()) && !in_word(after.chars().next())
    })
}

#[test]
fn every_function_of_the_walks_of_the_architecture_is_in_its_file() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = 0;
    let mut missing = Vec::new();
    for part in page.split("**`").skip(1) {
        // As in: **`session/save.rs`**, `Session::stored`
        let Some((path, rest)) = part.split_once("`**, `") else { continue };
        let name = last_name(rest.split('`').next().unwrap());
        let text = source(path).map(|file| text_of(&file)).unwrap_or_default();
        found += 1;
        if !["(", "<"].iter().any(|after| text.contains(&format!("fn {name}{after}"))) {
            missing.push(format!("{path}: {name}"));
        }
    }
    assert!(found > 20, "the walks are not found any more: {found}");
    assert!(missing.is_empty(), "these functions have moved or are gone: {missing:?}");
}

#[test]
fn what_the_code_map_says_to_look_for_is_in_its_file() {
    let page = fs::read_to_string(root().join("docs/code-map.md")).unwrap();
    let mut found = 0;
    let mut missing = Vec::new();
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').collect();
        let [_, _, files, names, _] = cells[..] else { continue };
        let text: String = spans(files).filter_map(source).map(|file| text_of(&file)).collect();
        for name in spans(names) {
            found += 1;
            if !has_word(&text, last_name(name)) {
                missing.push(format!("{}: {name}", files.trim()));
            }
        }
    }
    assert!(found > 50, "the rows are not found any more: {found}");
    assert!(missing.is_empty(), "these have moved or are gone: {missing:?}");
}
