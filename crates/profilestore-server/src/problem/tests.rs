use std::collections::BTreeSet;

use super::*;

#[test]
fn every_kind_of_error_has_its_row_with_the_librarys_advice() {
    for kind in ErrorKind::ALL {
        let name = name_of(kind);
        let row = find(&name).unwrap_or_else(|| panic!("{name} has no row"));
        // A server process that stops is no reason to let a player go.
        let advice = match kind {
            ErrorKind::Closing => "retry",
            kind => advice_word(kind.advice()),
        };
        assert_eq!(row.advice, advice, "{name}");
    }
}

#[test]
fn each_row_is_there_once_and_complete() {
    let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len());
    for row in TABLE {
        assert!((400..600).contains(&row.status), "{}", row.name);
        assert!(["retry", "retry-as", "leave", "ignore", "fix"].contains(&row.advice));
        assert!(row.title.ends_with('.') && row.remedy.ends_with('.'), "{}", row.name);
    }
}

#[test]
fn names_that_the_code_uses_are_in_the_table() {
    for source in [
        include_str!("../app.rs"),
        include_str!("../auth.rs"),
        include_str!("../cookie.rs"),
        include_str!("../rates.rs"),
        include_str!("../access/logins.rs"),
        include_str!("../access/members.rs"),
        include_str!("../access/passwords.rs"),
        include_str!("../access/setup.rs"),
        include_str!("../bulk/mod.rs"),
        include_str!("../http/bulk.rs"),
        include_str!("../http/logins.rs"),
        include_str!("../http/logins/list.rs"),
        include_str!("../http/edits.rs"),
        include_str!("../http/extract.rs"),
        include_str!("../http/health.rs"),
        include_str!("../http/history.rs"),
        include_str!("../http/pages.rs"),
        include_str!("../http/profiles.rs"),
        include_str!("../http/views.rs"),
        include_str!("../ws/mod.rs"),
    ] {
        for rest in source.split("Problem::new(\"").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(find(name).is_some(), "{name}");
        }
    }
}

#[test]
fn an_error_without_values_shows_nothing_of_what_is_there() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Secret {
        password: String,
    }

    let told = |text: &str| match serde_json::from_str::<Secret>(text) {
        Ok(secret) => panic!("{}", secret.password),
        Err(error) => without_values(&error),
    };
    for text in [
        r#"{"password":12345}"#,
        r#"{"password":{"12345":1}}"#,
        r#"{"12345":1}"#,
        r#""12345, expected 12345""#,
        "12345",
    ] {
        let told = told(text);
        assert!(told.starts_with("expected ") && !told.contains("12345"), "{told}");
    }
    assert!(told("{}").contains("missing field `password`"));
    assert!(told("{\"password\":").contains("EOF"));
}
