use profilestore_testbed::almost_a_frame;
use proptest::prelude::*;

use super::{reading::MOST_TOLD, *};

fn detail(problem: &Problem) -> String {
    problem.members("")["detail"].as_str().unwrap_or_default().to_owned()
}

fn told_of(text: &str) -> String {
    detail(&parse(text).expect_err("this is no frame"))
}

#[test]
fn a_greeting_that_cannot_be_read_shows_none_of_its_secrets() {
    for text in [
        r#"{"hello":{"instance":12345678901234567,"job":"eu-1"}}"#,
        r#"{"hello":{"instance":["12345678901234567"],"job":"eu-1"}}"#,
        r#"{"hello":"12345678901234567"}"#,
        r#""12345678901234567""#,
    ] {
        let told = told_of(text);
        assert!(!told.contains("12345678901234567"), "{told}");
        assert!(told.contains("expected"), "{told}");
    }
    let told = told_of(r#"{"hello":{"instance":"0123456789abcdef"}}"#);
    assert!(told.contains("missing field `job`"), "{told}");
    // What is no secret is shown.
    let told = told_of(r#"{"ping":{"n":"seven"}}"#);
    assert!(told.contains("seven"), "{told}");
}

#[test]
fn what_is_wrong_with_a_frame_is_told_in_a_few_words() {
    let name = "x".repeat(MAX_FRAME / 2);
    for text in [
        format!("{{\"{name}\":{{}}}}"),
        format!("{{\"{name}\":1,\"y\":2}}"),
        format!("{{\"ping\":{{\"n\":\"{name}\"}}}}"),
    ] {
        let told = told_of(&text);
        assert_eq!(told.chars().count(), MOST_TOLD + 1, "{} bytes", told.len());
        assert!(told.ends_with("x…"), "{} bytes", told.len());
    }
}

/// It said that there were 10, of which it shows the names, however many there were.
#[test]
fn all_members_of_a_frame_that_has_too_many_are_counted() {
    let members: Vec<String> = (0..12).map(|number| format!("\"m{number}\":1")).collect();
    let told = told_of(&format!("{{{}}}", members.join(",")));
    assert!(told.contains("this one has 12: members=`m0`"), "{told}");
}

/// A client could bring frames of 5 MiB for as long as its greeting took.
#[test]
fn what_the_frames_of_a_greeting_bring_is_bounded() {
    let mut room = 100;
    assert!(take_room(&mut room, 60).is_ok());
    let refused = take_room(&mut room, 41).expect_err("there is no room for it");
    assert_eq!(refused.row().name, "too-large");
    assert!(take_room(&mut room, 40).is_ok());
    assert!(take_room(&mut room, 1).is_err());
}

proptest! {
    /// The fuzz target for frames. `PROPTEST_CASES` says how many there are.
    #[test]
    fn almost_a_frame_is_one_or_is_told_why(text in almost_a_frame()) {
        let _ = number_of(&text);
        match parse(&text) {
            // A frame that comes again is the same request.
            Ok(frame) => {
                let written = serde_json::to_string(&frame).unwrap();
                let again: ClientFrame = serde_json::from_str(&written).unwrap();
                prop_assert_eq!(&serde_json::to_string(&again).unwrap(), &written);
                let print = |frame: &ClientFrame| {
                    Instance::new("0123456789abcdef").request(1, "any", frame).fingerprint
                };
                prop_assert_eq!(print(&frame), print(&again));
            }
            Err(problem) => {
                let told = detail(&problem);
                prop_assert!(!told.is_empty() && told.chars().count() <= MOST_TOLD + 1, "{}", told);
            }
        }
    }
}
