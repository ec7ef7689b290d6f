//! `serve` and `keys` as people run them: the real program, real signals.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
};

use super::*;

/// A running server, killed when the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) key: Option<String>,
}

impl Running {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--json"], args].concat();
        Self::begin(&mut place.command(&args))
    }

    /// Runs `serve --json` as it was put together, until it listens.
    pub(crate) fn begin(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        Self { child, url: text("url").unwrap(), key: text("key") }
    }

    pub(crate) fn ask(
        &self,
        key: &str,
        method: &str,
        path: &str,
        more: &str,
        body: &str,
    ) -> (u16, String) {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{more}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// SIGTERM, how it ended, and what it had said on standard error, which is a pipe.
    pub(crate) fn stop_and_read(mut self) -> (i32, String) {
        let mut stderr = self.child.stderr.take().unwrap();
        let code = self.stop();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        (code, said)
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> i32 {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

#[test]
fn the_first_start_makes_store_and_key_and_the_next_one_finds_both() {
    let place = Place::new();
    let first = Running::start(&place, &[]);
    let key = first.key.clone().expect("the first start makes a key");
    let new = "If-None-Match: *\r\n";
    let (status, body) = first.ask(&key, "PUT", PLAYER, new, r#"{"data":{"coins":10}}"#);
    assert_eq!(status, 201, "{body}");
    assert_eq!(first.stop(), 0);
    let second = Running::start(&place, &[]);
    assert_eq!(second.key, None);
    let (status, body) = second.ask(&key, "GET", PLAYER, "", "");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""data":{"coins":10}"#), "{body}");
    let list = place.ok(&["keys", "list"]);
    assert!(list.contains("first") && list.contains("valid"), "{list}");
    assert!(!list.contains(&key[16..]), "{list}");
    assert_eq!(second.stop(), 0);
    let ran = place.ok(&["get", "PlayerData/user-1", "--json"]);
    assert!(ran.contains("coins"), "{ran}");
}

/// The key was made before the address was taken, and no start ever showed it.
#[test]
fn a_first_start_that_cannot_listen_leaves_the_key_to_the_next_one() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = place.run(&["serve", "--listen", &address]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("cannot listen"), "{failed:?}");
    let next = Running::start(&place, &[]);
    let key = next.key.clone().expect("the next start makes the key");
    assert_eq!(next.ask(&key, "GET", "/v1/keys", "", "").0, 200);
    assert_eq!(next.stop(), 0);
}

#[test]
fn keys_are_made_and_revoked_by_command_while_a_server_runs() {
    let place = Place::new();
    let server = Running::start(&place, &[]);
    let made = place.json(&["keys", "add", "shop", "--scope", "profiles:read", "--json"]);
    let (key, id) = (made["key"].as_str().unwrap(), made["record"]["id"].as_str().unwrap());
    assert_eq!(server.ask(key, "GET", PLAYER, "", "").0, 404);
    assert_eq!(server.ask(key, "PUT", PLAYER, "If-None-Match: *\r\n", "{}").0, 403);
    assert_eq!(place.ok(&["keys", "revoke", id]), format!("revoked {id} (shop)\n"));
    let other = place.ok(&["keys", "add", "ann", "--scope", "admin"]);
    assert_eq!(server.ask(other.trim(), "GET", "/v1/keys", "", "").0, 200);
    let gone = place.run(&["keys", "revoke", "000000000000"]);
    assert_eq!(gone.code, 4, "{gone:?}");
    let wrong = place.run(&["keys", "add", "a", "--scope", "all"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("profiles:read"), "{wrong:?}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn beyond_this_machine_it_needs_tls_and_a_key() {
    let place = Place::new();
    let open = place.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(open.code, 2, "{open:?}");
    assert!(open.stderr.contains("in the clear"), "{open:?}");
    assert!(!place.path("profiles.db").exists());
    let keyless = place.run(&["serve", "--listen", "127.0.0.1:0", "--trust-proxy"]);
    assert_eq!(keyless.code, 2, "{keyless:?}");
    assert!(keyless.stderr.contains("keys add NAME --scope admin"), "{keyless:?}");
    place.ok(&["keys", "add", "ann", "--scope", "admin"]);
    let server = Running::start(&place, &["--trust-proxy"]);
    assert_eq!(server.key, None);
    assert_eq!(server.stop(), 0);
}

/// Behind a proxy the link read `http://0.0.0.0:7400/…`, which no browser opens.
#[test]
fn the_link_for_the_first_member_can_be_opened() {
    let place = Place::new();
    place.ok(&["keys", "add", "ann", "--scope", "admin"]);
    let everywhere = ["serve", "--listen", "0.0.0.0:0", "--trust-proxy", "--json"];
    for (more, begins) in [
        (&[][..], "http://127.0.0.1:"),
        (&["--public-url", "https://p.example/"], "https://p.example/#/setup?token="),
    ] {
        let mut child =
            place.command(&[&everywhere, more].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        assert!(told["set_up"].as_str().unwrap().starts_with(begins), "{told}");
    }
}

#[test]
fn check_says_what_is_wrong_and_changes_nothing() {
    let place = Place::new();
    let fine = place.run(&["serve", "--check"]);
    assert_eq!((fine.code, &*fine.stderr), (0, ""), "{fine:?}");
    assert!(fine.stdout.contains("listen  127.0.0.1:7400"), "{fine:?}");
    assert!(fine.stdout.contains("limit   1000 requests a second"), "{fine:?}");
    for wrong in [["--requests-per-second", "0"], ["--public-url", "p.example"]] {
        let told = place.run(&[&["serve", "--check"], &wrong[..]].concat());
        let name = wrong[0].trim_start_matches('-').replace('-', "_");
        assert_eq!(told.code, 1, "{told:?}");
        assert!(told.stdout.contains(&format!("wrong   {name} is")), "{told:?}");
    }
    assert!(!place.path("profiles.db").exists());
    fs::write(
        place.path("serve.toml"),
        "listen = \"0.0.0.0:7400\"\ntls_certificate = \"c.pem\"\njob = \"\"\n",
    )
    .unwrap();
    let wrong = place.run(&["serve", "--check", "--config", "serve.toml"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert_eq!(wrong.stdout.matches("wrong   ").count(), 2, "{wrong:?}");
    fs::write(place.path("serve.toml"), "listen_on = 1\n").unwrap();
    let wrong = place.run(&["serve", "--config", "serve.toml"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("line 1: unknown field `listen_on`"), "{wrong:?}");
    fs::write(place.path("serve.toml"), "store = \"sqlite:other.db\"\n").unwrap();
    let named = place.ok(&["serve", "--check", "--config", "serve.toml"]);
    assert!(named.contains("store   sqlite:other.db"), "{named}");
    let flag = ["serve", "--check", "--config", "serve.toml", "--store", "sqlite:third.db"];
    assert!(place.ok(&flag).contains("store   sqlite:third.db"));
}

/// Both were called right, and `serve` then failed with them.
#[test]
fn check_looks_at_the_messenger_and_at_the_folder_of_a_store_that_is_to_be_made() {
    let place = Place::new();
    let told = place.run(&["serve", "--check", "--messenger", "amqp://me:hush@host"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(told.stdout.matches("wrong   ").count(), 1, "{told:?}");
    assert!(!told.stdout.contains("hush"), "{told:?}");
    let told = place.run(&["serve", "--check", "--store", "sqlite:none/profiles.db"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("wrong   there is no such folder: folder=`none`"), "{told:?}");
}

#[test]
fn what_the_first_start_shows_fits_a_terminal_and_can_be_typed() {
    let place = Place::new();
    let mut child = place
        .command(&["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in &mut lines {
        told.push(line.unwrap());
        if told.last().unwrap().contains("Ctrl-C") {
            break;
        }
    }
    let long: Vec<_> = told.iter().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:?}");
    let script: Vec<_> = told.iter().filter(|line| line.starts_with("  ")).cloned().collect();
    assert_eq!(script.len(), 5, "{told:?}");
    let typed = Command::new("sh").arg("-ec").arg(script.join("\n")).output();
    let _ = child.kill();
    let _ = child.wait();
    let typed = Ran::from(typed.unwrap());
    // Where there is no curl, the lines are at least complete.
    if typed.code != 127 {
        assert_eq!(typed.code, 0, "{typed:?}");
        assert!(typed.stdout.contains(r#""data":{"coins":10}"#), "{typed:?}");
    }
}

/// The table of settings in the documentation is that of the code.
#[test]
fn every_setting_is_documented_and_an_option() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md"))
            .unwrap();
    let help = Place::new().ok(&["serve", "--help"]);
    for (name, env, flag, default, meaning) in profilestore_server::config::SETTINGS {
        let row = format!("| `{name}` | `{env}` | `{flag}` | {default} | {meaning} |");
        assert!(page.contains(&row), "docs/server.md has no row:\n{row}");
        assert!(help.contains(flag) && help.contains(env), "{flag}");
    }
}
