//! The conformance kit, as far as its processes go. `./test` runs the kit itself.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Place;

/// A driver that says where it is, and then nothing.
const DRIVER: &str = "echo $$ >told\nmv told driver.pid\nexec sleep 1000\n";

/// The state of a process and its parent, as Linux tells them.
fn state(id: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name stands in parentheses, and may have anything in it.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// Nobody may be there to take the end of a process whose parent is gone: a zombie has ended.
fn runs(id: u32) -> bool {
    state(id).is_some_and(|(state, _)| state != "Z")
}

fn children(of: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap();
    let ids = ids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|id| state(*id).is_some_and(|(_, parent)| parent == of)).collect()
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this waits for processes, in real time")]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < until, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_kit_that_is_killed_leaves_no_process_behind() {
    for signal in ["KILL", "INT"] {
        let place = Place::new();
        fs::write(place.path("driver.sh"), DRIVER).unwrap();
        let only = ["conformance", "--only", "a save on its way/kill", "--driver", "sh driver.sh"];
        let mut kit = place
            .command(&only)
            .env("TMPDIR", place.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The servers run before the driver does.
        wait_until("the driver runs", || place.path("driver.pid").exists());
        let driver = fs::read_to_string(place.path("driver.pid")).unwrap().trim().parse().unwrap();
        let children = children(kit.id());
        assert!(children.contains(&driver) && children.len() >= 3, "{driver} {children:?}");
        let (signal, id) = (format!("-{signal}"), kit.id().to_string());
        assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
        kit.wait().unwrap();
        for id in children {
            wait_until("a process has ended", || !runs(id));
        }
    }
}

#[test]
fn a_row_of_the_kit_is_told_when_it_has_ended() {
    let place = Place::new();
    fs::write(place.path("driver.sh"), DRIVER).unwrap();
    let script = r#"{"name": "one whose driver says nothing", "shows": "", "steps": []}"#;
    let scripts = format!(r#"{{"about": "", "faults": {{}}, "scripts": [{script}]}}"#);
    fs::write(place.path("scripts.json"), scripts).unwrap();
    fs::write(place.path("vectors.json"), r#"{"about": "", "vectors": []}"#).unwrap();
    let mut kit = place
        .command(&["conformance", "--data", ".", "--driver", "sh driver.sh"])
        .env("TMPDIR", place.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(kit.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    kit.kill().unwrap();
    kit.wait().unwrap();
    assert_eq!(first, "ok    0 vectors  (rules that need no server)");
    assert_eq!(lines.count(), 0, "the script goes on, so there is no row of it yet");
}
