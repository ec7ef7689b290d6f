//! The description of the resources is what is committed, and says what the server does.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Served, client::Client};

fn committed(name: &str, made: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("api").join(name);
    // PROFILESTORE_WRITE_API=1 writes it anew.
    if std::env::var_os("PROFILESTORE_WRITE_API").is_some() {
        fs::write(&path, made).unwrap();
    }
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_committed_description_is_that_of_the_code() {
    let files = [
        ("openapi.json", profilestore_server::openapi()),
        ("frames.json", profilestore_server::frames()),
    ];
    for (name, made) in files {
        assert!(
            committed(name, &made) == made,
            "api/{name} is old; PROFILESTORE_WRITE_API=1 cargo nextest run … writes it anew"
        );
    }
}

#[test]
fn each_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let api: Value = serde_json::from_str(&profilestore_server::openapi()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    let mut operations = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let named = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let part = part.trim_end_matches('}');
                let known = named
                    .iter()
                    .any(|parameter| parameter["name"] == part && parameter["in"] == "path");
                assert!(known, "{method} {path} does not describe {part}");
            }
        }
    }
    assert!(operations > 40, "{operations}");
}

/// A described path with something in each of its places.
pub(crate) fn filled(path: &str) -> String {
    path.replace("{user}", "1")
        .replace("{kind}", "held")
        .replace("{version}", "1")
        .replace("{id}", "000000000000")
        .replace("{operation}", "01a1ee38-7a00-7000-8000-000000000001")
        .replace(['{', '}'], "")
}

/// The method and the path of each described operation.
pub(crate) fn described() -> Vec<(String, String)> {
    let api: Value = serde_json::from_str(&profilestore_server::openapi()).unwrap();
    let paths = api["paths"].as_object().unwrap().iter();
    let operations = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(operations).collect()
}

#[tokio::test]
async fn each_described_operation_is_there() {
    let served = Served::start().await;
    let (admin, stranger) = (served.admin(), Client::without_key(served.address));
    let api: Value = admin.get("/openapi.json").await.is(200);
    for (path, methods) in api["paths"].as_object().unwrap() {
        let filled = filled(path);
        for (method, operation) in methods.as_object().unwrap() {
            // A stream may have no end; without a key the answer tells too that it is there.
            let streams = &operation["responses"]["200"]["content"]["text/event-stream"];
            let caller = if streams.is_null() { &admin } else { &stranger };
            let answer = caller.send(&method.to_uppercase(), &filled, Some(b"{}")).await;
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(answer.status < 500, "{method} {path}: {}", answer.text());
            let is_there = answer.status != 404 || answer.json()["kind"] != "no-such-resource";
            assert!(is_there, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_pages_need_nothing_from_elsewhere() {
    let served = Served::start().await;
    let admin = served.admin();
    for path in ["/docs", "/errors", "/errors/taken-elsewhere"] {
        let page = admin.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let text = page.text();
        for foreign in ["http://", "https://", "src=", "<script", "@import"] {
            assert!(!text.contains(foreign), "{path}: {foreign}");
        }
        assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    }
    let page = admin.get("/errors/taken-elsewhere").await;
    assert!(page.text().contains("Let the player go"), "{}", page.text());
}
