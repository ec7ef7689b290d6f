//! The page of classes: what there is of each, beside what the list of classes has.
//! `PROFILESTORE_WRITE_API=1` writes it.

use std::{fmt::Write as _, path::Path};

use profilestore_luau::{Class, Game};

use crate::current;

const HEAD: &str = "\
# Roblox's classes: how much of each is there

For Roblox developers: which methods, events and properties `profilestore run` and
`profilestore test` emulate. How they behave is in [Roblox services](roblox-services.md). Methods
that only give an error, such as `RemoteEvent:FireServer`, are left out. *Without an engine* are
events that nothing makes happen, unless a test fires them (`simulate.fire`), and methods that have
nothing to do.

A test makes this page of what a game's machine says, and of Roblox's reflection database as the
crate `rbx_reflection_database` has it:
`PROFILESTORE_WRITE_API=1 cargo nextest run -p profilestore-luau -E 'test(page_of_classes)'`.
";

const NOTE: &str = "\
A script that asks for anything else of a class gets an error that names it. Properties that are not
in the table are kept: they have their types and defaults, and nothing happens when they change.
";

/// How many classes there are, of them those that scripts can make and services, and their
/// properties.
fn counts() -> [usize; 4] {
    let list = include_str!("../../src/classes.txt");
    let lines: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let marked = |mark: char| {
        let marks = lines.iter().filter_map(|line| line.split(' ').nth(2));
        marks.filter(|marks| marks.contains(mark)).count()
    };
    let words = lines.iter().flat_map(|line| line.split(' '));
    let properties =
        words.filter(|word| word.split('=').next().is_some_and(|key| key.contains(':')));
    // Instance itself has no line.
    [lines.len() + 1, marked('+'), marked('*'), properties.count()]
}

fn row(class: &Class) -> String {
    let cell = |names: &[String]| names.join(", ");
    format!(
        "| {} | {} | {} | {} | {} |",
        class.name,
        cell(&class.methods),
        cell(&class.events),
        cell(&class.properties),
        cell(&class.idle)
    )
}

#[test]
fn the_page_of_classes_is_of_today() {
    let classes = Game::classes().expect("a machine");
    let [all, made, services, properties] = counts();
    let mut text = HEAD.to_owned();
    let _ = writeln!(
        text,
        "\nAll {all} classes of Roblox are known, with {properties} properties that scripts see. \
         Scripts can make\n{made} of them; {services} are services, which `game:GetService` gives. \
         Of {} there is more:\n\n| class | methods | events | properties that say or do something \
         | without an engine |\n| --- | --- | --- | --- | --- |",
        classes.len()
    );
    for class in &classes {
        let _ = writeln!(text, "{}", row(class));
    }
    let _ = write!(text, "\n{NOTE}\nNext: [how the services behave](roblox-services.md).\n");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    current(&root.join("docs/roblox-classes.md"), &text);
}
