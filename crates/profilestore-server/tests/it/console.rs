//! The console's files: found at `/`, complete, and nothing else is taken from the API.

use crate::{Served, client::Client, refused};

/// The files that the page names, by their addresses.
fn named(page: &str) -> Vec<String> {
    let ends = |text: &str| text.split('"').next().unwrap().to_owned();
    page.split("\"./").skip(1).map(|rest| format!("/{}", ends(rest))).collect()
}

#[tokio::test]
async fn the_console_is_at_the_root_without_a_key_and_is_complete() {
    let served = Served::start().await;
    let anyone = Client::without_key(served.address);
    let page = anyone.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("content-encoding"), None);
    let files = named(page.text());
    for kind in [".js", ".css", ".svg"] {
        let path = files.iter().find(|path| path.ends_with(kind)).unwrap();
        let plain = anyone.get(path).await;
        assert_eq!(plain.status, 200, "{path}");
        assert_eq!(
            plain.header("cache-control"),
            Some("public, max-age=31536000, immutable"),
            "its name comes from its contents"
        );
        let packed = anyone.header("Accept-Encoding", "gzip, deflate, br").get(path).await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.body[..2], [0x1f, 0x8b], "{path} is gzip");
        let length = packed.body.last_chunk::<4>().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, plain.body.len(), "{path}");
    }
}

#[tokio::test]
async fn the_console_may_only_run_its_own_scripts_and_ask_this_server() {
    let served = Served::start().await;
    let page = Client::without_key(served.address).get("/").await;
    let policy = page.header("content-security-policy").unwrap();
    let directives: Vec<_> = policy.split("; ").collect();
    for directive in ["default-src 'none'", "script-src 'self'", "connect-src 'self'"] {
        assert!(directives.contains(&directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn the_console_takes_no_path_of_the_api() {
    let served = Served::start().await;
    let anyone = Client::without_key(served.address);
    refused(&anyone.get("/v1/stores").await, 401, "unauthorized");
    refused(&anyone.get("/v1/nothing").await, 404, "no-such-resource");
    refused(&anyone.get("/assets/nothing.js").await, 404, "no-such-resource");
    refused(&anyone.get("/find").await, 404, "no-such-resource");
    assert!(anyone.get("/docs").await.text().contains("OpenAPI"));
    assert!(anyone.get("/errors").await.text().contains("unauthorized"));
}
