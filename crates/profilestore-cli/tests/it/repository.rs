//! The repository itself: nothing lies at its root by accident, no file is large or long, every
//! dependency is used, the default program has few of them, what the published crates include goes
//! with them, and their READMEs stand by themselves.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::docs::{links, prose};

/// What belongs at the root.
const ROOT: [&str; 22] = [
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "conformance",
    "console",
    "crates",
    "docs",
    "examples",
    "ops",
    "rustfmt.toml",
    "scripts",
    "sdk",
    "test",
];

const MAX_FILE_BYTES: u64 = 1 << 20;

/// How many packages the default program may be built from, itself included.
const MAX_PACKAGES: usize = 115;

/// The crates that others can depend on or install.
pub(crate) const PUBLISHED: [&str; 4] =
    ["profilestore", "profilestore-cli", "profilestore-luau", "profilestore-server"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// What git does not look at, and git's own.
fn is_ignored(path: &Path) -> bool {
    let name = name(path);
    [".git", "target", "node_modules", "dist", "dist-test"].contains(&&*name)
        || [".db", ".db-wal", ".db-shm"].iter().any(|end| name.ends_with(end))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| !is_ignored(path)).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (folders, mut files): (Vec<_>, Vec<_>) =
        entries(folder).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| files_below(folder)));
    files
}

#[test]
fn nothing_lies_at_the_root_that_does_not_belong_there() {
    let found = entries(&root());
    let strange: Vec<_> =
        found.iter().map(|path| name(path)).filter(|name| !ROOT.contains(&&**name)).collect();
    assert!(strange.is_empty(), "move these or name them in ROOT: {strange:?}");
    assert_eq!(found.len(), ROOT.len(), "ROOT names what is not there");
}

#[test]
fn no_file_is_larger_than_a_megabyte() {
    let large = |path: &PathBuf| fs::metadata(path).unwrap().len() > MAX_FILE_BYTES;
    let large: Vec<_> = files_below(&root()).into_iter().filter(large).collect();
    assert!(large.is_empty(), "{large:?}");
}

#[test]
fn no_file_of_sources_has_more_than_500_lines() {
    let root = root();
    let made = root.join("crates/profilestore-server/console");
    let folders = ["conformance", "console/src", "console/test", "crates", "examples", "ops"];
    let sdks = ["python/src", "python/tests", "typescript/src", "typescript/test"];
    let folders = folders.into_iter().map(|folder| root.join(folder));
    let folders = folders.chain(sdks.into_iter().map(|folder| root.join("sdk").join(folder)));
    let files = folders.chain([root.join("scripts")]).flat_map(|folder| files_below(&folder));
    let endings = ["js", "luau", "mjs", "py", "rs", "sh", "svelte", "ts"];
    let is_source = |path: &PathBuf| {
        let ending = path.extension().unwrap_or_default();
        endings.iter().any(|known| ending == *known) && !path.starts_with(&made)
    };
    let sources: Vec<PathBuf> = files.filter(is_source).collect();
    assert!(sources.len() > 500, "the sources are found: {}", sources.len());
    let lines = |path: &PathBuf| fs::read(path).unwrap().split(|byte| *byte == b'\n').count() - 1;
    let long: Vec<_> = sources.into_iter().filter(|path| lines(path) > 500).collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

/// The names in those tables of a manifest whose headings end in `table`.
fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(heading) = line.strip_prefix('[') {
            inside = heading.strip_suffix(']') == Some(table);
        } else if inside
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
        {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Whether code, and not only comments, has a path that begins with this crate. A variable or a
/// method of the same name is none.
fn names_crate(source: &str, krate: &str) -> bool {
    let in_word = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    source.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(krate).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + krate.len()..]);
            let is_path = after.starts_with("::")
                || (before.ends_with("use ") && !in_word(after.chars().next()));
            is_path && !in_word(before.chars().next_back()) && !before.ends_with(':')
        })
    })
}

#[test]
fn a_variable_named_like_a_dependency_does_not_count_as_its_use() {
    assert!(names_crate("let text = bytes::Bytes::new();", "bytes"));
    assert!(names_crate("use tokio;", "tokio"));
    let others = "let bytes = file.bytes();\n// bytes::Bytes\nuse bytes_of::All;\nmy_bytes::f();\ncrate::bytes::f();";
    assert!(!names_crate(others, "bytes"));
}

#[test]
fn every_dependency_is_used() {
    let mut used = BTreeSet::new();
    let crates = ["crates", "examples"].map(|folder| entries(&root().join(folder)));
    for krate in crates.into_iter().flatten() {
        let Ok(manifest) = fs::read_to_string(krate.join("Cargo.toml")) else { continue };
        let sources = |folders: &[&str]| {
            let files = folders.iter().flat_map(|folder| files_below(&krate.join(folder)));
            let code =
                files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
            code.map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>().join("\n")
        };
        for (table, folders) in [
            ("dependencies", &["src"][..]),
            ("dev-dependencies", &["src", "tests", "benches", "examples"][..]),
        ] {
            let sources = sources(folders);
            for name in dependencies(&manifest, table) {
                let word = name.replace('-', "_");
                assert!(
                    names_crate(&sources, &word),
                    "{} does not use `{name}` of [{table}]",
                    krate.display()
                );
                used.insert(name);
            }
        }
    }
    let workspace = dependencies(
        &fs::read_to_string(root().join("Cargo.toml")).unwrap(),
        "workspace.dependencies",
    );
    assert!(workspace.len() > 30, "the manifest is read: {workspace:?}");
    let unused: Vec<_> = workspace.difference(&used).collect();
    assert!(unused.is_empty(), "no crate uses {unused:?}");
}

/// A program with PostgreSQL, NATS, Luau and the server, but without the kit for SDKs, could not be
/// compiled: what says that the kit is left out was left out itself.
#[test]
fn a_program_says_what_is_left_out_unless_it_has_every_part() {
    let program = root().join("crates/profilestore-cli");
    let source = fs::read_to_string(program.join("src/output.rs")).unwrap();
    let before = source.split("fn left_out").next().unwrap();
    let condition = before.rsplit("#[cfg(").next().unwrap();
    assert!(condition.starts_with("not(feature = \"full\"))]"), "{condition}");
    let manifest = fs::read_to_string(program.join("Cargo.toml")).unwrap();
    let full = manifest.lines().find_map(|line| line.strip_prefix("full = ")).unwrap();
    let mut parts = dependencies(&manifest, "features");
    assert!(parts.remove("default") && parts.remove("full") && !parts.is_empty(), "{parts:?}");
    let missing: Vec<_> =
        parts.iter().filter(|part| !full.contains(&format!("\"{part}\""))).collect();
    assert!(missing.is_empty(), "`full` lacks {missing:?}");
}

/// So a first `demo` is built soon.
#[test]
fn the_default_program_is_built_from_few_packages() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none"])
        .args(["-p", "profilestore-cli"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let listed = String::from_utf8(tree.stdout).unwrap();
    // A package that was listed before has a mark.
    let lines = listed.lines().map(|line| line.trim_end_matches(" (*)"));
    let packages: BTreeSet<_> = lines.filter(|line| !line.is_empty()).collect();
    let is_listed = |name: &str| packages.iter().any(|package| package.starts_with(name));
    assert!(is_listed("profilestore-cli v") && is_listed("clap v"), "{packages:?}");
    assert!(packages.len() <= MAX_PACKAGES, "{} packages: {packages:#?}", packages.len());
}

/// `./test quick` runs unit tests where no server is, so it names those that need one, and leaves
/// them out.
#[test]
fn the_quick_tests_leave_out_each_unit_test_that_needs_a_server() {
    let script = fs::read_to_string(root().join("test")).unwrap();
    let left_out: Vec<&str> = script
        .split("test(/")
        .skip(1)
        .filter_map(|rest| rest.split_once("/)"))
        .map(|(name, _)| name)
        .collect();
    let crates = entries(&root().join("crates")).into_iter();
    let sources = crates
        .filter(|krate| name(krate) != "profilestore-testbed")
        .flat_map(|krate| files_below(&krate.join("src")));
    let mut needing = 0;
    for path in sources {
        let Ok(source) = fs::read_to_string(&path) else { continue };
        // What of the testbed starts servers.
        for starts in ["PostgresServer", "PatroniCluster", "NatsServer", "nats_cluster"] {
            assert!(!source.contains(starts), "{} starts servers", path.display());
        }
        let here = source.matches("\"PROFILESTORE_TEST_").count();
        let module = format!(
            "{}::{}::",
            name(path.parent().unwrap()),
            path.file_stem().unwrap().to_str().unwrap()
        );
        let named = left_out.iter().filter(|name| name.starts_with(&module)).count();
        assert_eq!(named, here, "{}: `./test quick` names its tests", path.display());
        needing += here;
    }
    assert!(needing > 0, "the sources are read, and this names what they read");
}

/// A registry shows a crate's README without the repository around it.
#[test]
fn the_readme_of_a_published_crate_stands_by_itself() {
    for krate in PUBLISHED {
        let path = root().join("crates").join(krate).join("README.md");
        assert!(!path.is_symlink(), "{krate}: the README at the root links to the repository");
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with(&format!("# {krate}\n")), "{krate}: the heading is another name");
        let relative: Vec<_> = prose(&text)
            .flat_map(|(_, line)| links(line))
            .filter(|target| !target.contains("://"))
            .collect();
        assert!(relative.is_empty(), "{krate}: these links lead nowhere there: {relative:?}");
    }
}

/// npm and PyPI showed links to pages of the repository, which led nowhere.
#[test]
fn the_readme_of_an_sdk_links_to_itself_alone() {
    for sdk in ["python", "typescript"] {
        let text = fs::read_to_string(root().join("sdk").join(sdk).join("README.md")).unwrap();
        let elsewhere: Vec<_> = prose(&text)
            .flat_map(|(_, line)| links(line))
            .filter(|target| !target.contains("://") && !target.starts_with('#'))
            .collect();
        assert!(elsewhere.is_empty(), "{sdk}: these links lead nowhere there: {elsewhere:?}");
    }
}

/// A published crate has what its sources include, and the texts that belong to it.
#[test]
fn what_a_published_crate_includes_goes_with_it() {
    for krate in PUBLISHED {
        let folder = root().join("crates").join(krate);
        for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let (own, common) =
                (fs::read(folder.join(name)).unwrap(), fs::read(root().join(name)).unwrap());
            assert!(own == common, "{krate}/{name} is a link to the one at the root");
        }
        for path in files_below(&folder.join("src")) {
            let Ok(source) = fs::read_to_string(&path) else { continue };
            // Pages whose programs are tested stay in the repository.
            let source = source.split("mod pages {").next().unwrap();
            for start in ["include_str!(\"", "include_bytes!(\""] {
                for (at, _) in source.match_indices(start) {
                    let included = source[at + start.len()..].split('"').next().unwrap();
                    // Not resolved: the links are what is packaged.
                    let up = included.matches("../").count();
                    let depth = path.strip_prefix(&folder).unwrap().components().count() - 1;
                    assert!(
                        up <= depth,
                        "{} includes {included} from outside of {krate}",
                        path.display()
                    );
                }
            }
        }
    }
}
