//! The lines of `docs/server.md`, typed as they are but for the address and the key: into a shell
//! with `curl`, and into `websocat`. The tests fail where one of the two is missing; `./test`
//! installs both.

use std::{
    io::{BufRead as _, BufReader},
    process::ChildStdin,
};

use super::*;
use crate::serve::Running;

/// Where the page's server listens.
const ADDRESS: &str = "127.0.0.1:7400";

/// The code of a language in one section of the page, as it is typed at this server.
fn blocks(section: &str, language: &str, server: &Running) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
    let page = fs::read_to_string(page).unwrap();
    let text = page.split(&format!("\n## {section}\n")).nth(1).expect("the page has the section");
    let text = text.split("\n## ").next().unwrap();
    let address = server.url.strip_prefix("http://").unwrap();
    let fence = format!("```{language}\n");
    let code = text.split(&fence).skip(1);
    let code = code.map(|rest| rest.split("```").next().unwrap().replace(ADDRESS, address));
    let key = server.key.as_deref().expect("the first start makes a key");
    code.map(|code| code.replace("KEY=ps_…", &format!("KEY={key}"))).collect()
}

/// A shell in which a request that is refused ends everything.
fn shell(place: &Place, server: &Running, lines: &str) -> Command {
    fs::write(place.path(".curlrc"), "fail-with-body\nsilent\nshow-error\n").unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-ec").arg(lines).current_dir(place.folder.path());
    shell.env("CURL_HOME", place.folder.path()).env("KEY", server.key.as_deref().unwrap());
    shell
}

#[test]
fn the_lines_with_curl_can_be_typed_as_they_stand() {
    let place = Place::new();
    let server = Running::start(&place, &[]);
    let sections =
        ["Start", "Users", "Search by value", "Trades and gifts of a profile"].into_iter();
    let lines: Vec<_> = sections.flat_map(|section| blocks(section, "sh", &server)).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let typed = Ran::from(shell(&place, &server, &lines.concat()).output().unwrap());
    assert_eq!((typed.code, &*typed.stderr), (0, ""), "{typed:?}");
    for told in [r#""data":{"coins":10}"#, r#""coins":500"#, r#""after":3"#, r#""restored":1"#] {
        assert!(typed.stdout.contains(told), "{told}: {typed:?}");
    }
}

/// Types a line, and reads the frame that it is answered with.
fn type_in(
    input: &mut ChildStdin,
    answers: &mut impl Iterator<Item = String>,
    line: &str,
) -> Value {
    writeln!(input, "{line}").unwrap();
    serde_json::from_str(&answers.next().expect("each frame is answered")).unwrap()
}

#[test]
fn a_session_can_be_typed_by_hand_as_it_stands() {
    let place = Place::new();
    let server = Running::start(&place, &[]);
    let shells = blocks("A session by hand", "sh", &server);
    let [connect, read] = &shells[..] else { panic!("a connection and a look: {shells:?}") };
    let frames = blocks("A session by hand", "json", &server).concat();
    let frames: Vec<_> = frames.lines().collect();
    let [asked @ .., bye] = &frames[..] else { panic!("there are frames: {frames:?}") };
    let mut typing = shell(&place, &server, connect);
    let mut typing = typing.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = typing.stdin.take().unwrap();
    let mut answers =
        BufReader::new(typing.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut told = Vec::new();
    for frame in asked {
        let answer = type_in(&mut input, &mut answers, frame);
        told.extend(answer.as_object().unwrap().keys().cloned());
    }
    assert_eq!(told, ["welcome", "started", "saved", "ended"]);
    writeln!(input, "{bye}").unwrap();
    assert_eq!(answers.next(), None, "the connection ends");
    assert!(typing.wait().unwrap().success());
    let typed = Ran::from(shell(&place, &server, read).output().unwrap());
    assert_eq!(typed.code, 0, "{typed:?}");
    let profile: Value = serde_json::from_str(&typed.stdout).unwrap();
    assert_eq!(profile["data"], json!({ "coins": 10 }), "{profile}");
    assert_eq!(profile["held"], Value::Null, "{profile}");
}
