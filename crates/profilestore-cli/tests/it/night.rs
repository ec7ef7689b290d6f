//! A night in one script: what goes wrong while the makers sleep, each time solved with what the
//! runbook tells people to type, and nothing else.

use std::{fs, path::Path, process::Command};

use crate::{Place, Ran, line, maintain::write_value, profile};

/// The pages that an operator has: the runbook, and the one that it sends to when the store has a
/// problem.
const PAGES: [&str; 2] = [
    include_str!("../../../../docs/support-runbook.md"),
    include_str!("../../../../docs/trouble.md"),
];

/// An operator who types lines of the runbook.
struct Operator {
    place: Place,
    /// What the runbook's names stand for tonight.
    names: Vec<(String, String)>,
}

impl Operator {
    fn new(place: Place) -> Self {
        Self { place, names: Vec::new() }
    }

    /// From now on the runbook's `name` stands for this.
    fn means(&mut self, name: &str, this: &str) {
        self.names.retain(|(known, _)| known != name);
        self.names.push((name.to_owned(), this.to_owned()));
    }

    /// Types a line of the runbook in a shell, with tonight's names. Where the program asks,
    /// `--yes` is the answer.
    #[track_caller]
    fn types(&self, line: &str) -> Ran {
        in_the_runbook(line);
        let typed =
            self.names.iter().fold(line.to_owned(), |line, (name, this)| line.replace(name, this));
        let asks = ["profilestore rollback", "profilestore edit --all", "profilestore edit --undo"];
        let yes = asks.iter().any(|command| typed.starts_with(command));
        self.shell(&if yes { typed + " --yes" } else { typed })
    }

    fn shell(&self, typed: &str) -> Ran {
        let program = Path::new(env!("CARGO_BIN_EXE_profilestore")).parent().unwrap();
        // Where Debian keeps psql of each version.
        let psql = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let psql = psql.map(|version| version.unwrap().path().join("bin")).max();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [program.to_owned()].into_iter().chain(psql);
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", typed]).current_dir(self.place.folder.path()).env("PATH", path);
        shell.env("PROFILESTORE_STORE", "profiles.db").env_remove("PROFILESTORE_CONFIG");
        Ran::from(shell.output().unwrap())
    }

    /// The same, which must succeed.
    #[track_caller]
    fn does(&self, line: &str) -> String {
        let ran = self.types(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.stdout
    }
}

/// An operator finds this line there.
#[track_caller]
fn in_the_runbook(line: &str) {
    let printed = format!("$ {line}\n");
    assert!(PAGES.iter().any(|page| page.contains(&printed)), "not in the runbook: {line}");
}

/// The runbook says where this is dealt with.
#[cfg(any(feature = "postgres", all(target_os = "linux", feature = "serve")))]
#[track_caller]
fn sent_to(seen: &str, section: &str) {
    let [runbook, trouble] = PAGES;
    let mut rows = runbook.lines().filter(|line| line.contains(seen));
    let anchor = section.to_lowercase().replace('\'', "").replace(' ', "-");
    let link = format!("(trouble.md#{anchor})");
    assert!(rows.any(|row| row.contains(&link)), "{seen}: {link}");
    assert!(trouble.contains(&format!("\n## {section}\n")), "{section}");
}

/// Three players with two versions each.
fn at_dusk() -> Operator {
    let place = Place::new();
    let players = ["user-1", "user-2", "user-3"];
    let text: String = players
        .iter()
        .flat_map(|name| [(1, 500), (2, 20)].map(|(n, coins)| line(name, n, &profile(coins))))
        .collect();
    fs::write(place.path("in.jsonl"), text).unwrap();
    place.ok(&["import", "in.jsonl"]);
    Operator::new(place)
}

fn coins(operator: &Operator, name: &str) -> i64 {
    let key = format!("PlayerData/{name}");
    operator.place.json(&["get", &key, "--path", "/Coins"]).as_i64().unwrap()
}

#[test]
fn a_damaged_value_at_night() {
    let mut operator = at_dusk();
    write_value(&operator.place, "user-1", b"\x02\x00{\"value\":\"a whole value\"}").unwrap();
    let file = operator.place.path("profiles.db");
    let mut bytes = fs::read(&file).unwrap();
    let value = b"a whole value";
    let at = bytes.windows(value.len()).position(|found| found == value).unwrap();
    bytes[at + 4] = b'a';
    fs::write(&file, bytes).unwrap();
    let ran = operator.types("profilestore check");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("PlayerData/user-1 version 3: the stored value is damaged"));
    let history = operator.does("profilestore history PlayerData/user-1");
    assert!(history.lines().any(|line| line.starts_with("2 ")), "{history}");
    operator.means(" 12 ", " 2 ");
    operator.does("profilestore rollback PlayerData/user-1 12 --reason 'version 13 is damaged'");
    assert_eq!(coins(&operator, "user-1"), 20);
}

#[test]
fn lost_items_at_night() {
    let mut operator = at_dusk();
    operator.means(" 12", " 1");
    operator.means("/coins", "/Coins");
    operator.means("=500", "=480");
    let shown = operator.does("profilestore history PlayerData/user-1 --path /coins");
    assert!(shown.contains("500") && shown.contains("20"), "{shown}");
    let differs = operator.does("profilestore diff PlayerData/user-1 12");
    assert!(differs.contains("500") && differs.contains("20"), "{differs}");
    operator.does("profilestore audit --key PlayerData/user-1");
    operator.does("profilestore messages PlayerData/user-1");
    operator.does("profilestore pin PlayerData/user-1 12 --reason 'ticket 4711'");
    operator.does("profilestore edit PlayerData/user-1 --add /coins=500 --dry-run");
    assert_eq!(coins(&operator, "user-1"), 20);
    operator.does("profilestore edit PlayerData/user-1 --add /coins=500 --reason 'ticket 4711'");
    assert_eq!(coins(&operator, "user-1"), 500);
}

#[test]
fn a_bad_bulk_edit_at_night() {
    let mut operator = at_dusk();
    operator.means("/coins=100", "/Coins=1000000");
    operator.does(
        "profilestore edit --all --store-name PlayerData --add /coins=100 --reason 'birthday'",
    );
    // A player spends some of it before the mistake is seen.
    operator.place.ok(&["edit", "PlayerData/user-2", "--add", "/Coins=-300"]);
    let log = operator.does("profilestore audit --limit 20");
    let mut lines = log.lines().skip_while(|line| !line.contains("edit all"));
    let below = lines.nth(1).expect("the line below the edit");
    let id = below.trim().strip_prefix("operation ").expect("the operation's id");
    operator.means("01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10", id);
    operator.does(
        "profilestore edit --undo 01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10 --reason 'wrong amount'",
    );
    let all = ["user-1", "user-2", "user-3"].map(|name| coins(&operator, name));
    assert_eq!(all, [20, -280, 20]);
}

#[test]
fn a_wrong_gift_at_night() {
    let mut operator = at_dusk();
    let sent = operator.place.json(&["send", "PlayerData/user-1", r#"{"coins":5}"#, "--json"]);
    let waiting = operator.does("profilestore messages PlayerData/user-1");
    let id = sent["id"].as_str().unwrap();
    assert!(waiting.contains(id), "{waiting}");
    operator.means("1795000000000:ticket-4711", id);
    operator.does("profilestore messages PlayerData/user-1 --cancel 1795000000000:ticket-4711");
    assert_eq!(operator.does("profilestore messages PlayerData/user-1"), "no message waits\n");
}

/// On a disk of its own, which fills while a server has the store open.
#[cfg(all(target_os = "linux", feature = "serve"))]
#[test]
fn a_full_disk_at_night() {
    let mut small_disk = Command::new("unshare");
    small_disk.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]);
    if !small_disk.status().is_ok_and(|status| status.success()) {
        eprintln!("not shown: a disk that fills cannot be mounted on this machine");
        return;
    }
    sent_to("the disk is full", "The disk is full");
    for line in ["profilestore check", "profilestore status"] {
        in_the_runbook(line);
    }
    let operator = at_dusk();
    // A process of the other namespace can do all that a night needs; what it types is printed.
    let script = r#"
        set -eu
        profilestore() { "$PROGRAM" "$@"; }
        mkdir disk && mount -t tmpfs -o size=8m none disk && cp profiles.db disk/
        export PROFILESTORE_STORE=disk/profiles.db
        mkfifo told
        "$PROGRAM" serve --listen 127.0.0.1:0 --json >told 2>log & server=$!
        exec 3<told && read -r _ <&3
        cat /dev/zero >disk/another-file 2>/dev/null || true
        if "$PROGRAM" edit PlayerData/user-3 --add /Coins=1 2>said; then echo not full; exit 1; fi
        cat said
        rm disk/another-file
        "$PROGRAM" edit PlayerData/user-3 --add /Coins=1
        profilestore check
        # There is no backup yet, which it says.
        profilestore status || test $? = 1
        kill $server && wait $server && echo the server ended well
        "$PROGRAM" get PlayerData/user-3 --path /Coins
    "#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).current_dir(operator.place.folder.path());
    command.env("PROGRAM", env!("CARGO_BIN_EXE_profilestore"));
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("the disk is full"), "{ran:?}");
    assert!(ran.stdout.contains("all is well"), "{ran:?}");
    assert!(ran.stdout.contains("\npending      0 operations\n"), "{ran:?}");
    assert!(ran.stdout.ends_with("the server ended well\n21\n"), "{ran:?}");
}

/// A PostgreSQL server of its own, stopped and removed at the end.
#[cfg(feature = "postgres")]
struct Server {
    folder: std::path::PathBuf,
    url: String,
}

#[cfg(feature = "postgres")]
impl Server {
    fn start(place: &Place) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        // The server does not run as root, but as a user who must get there.
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let folder = place.path("server");
        let ran = Ran::from(Self::script().arg("start").arg(&folder).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        Self { folder, url: ran.stdout.trim().to_owned() }
    }

    fn script() -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new("bash");
        command.arg(root.join("scripts/postgres.sh"));
        command
    }
}

#[cfg(feature = "postgres")]
impl Drop for Server {
    fn drop(&mut self) {
        let _ = Self::script().arg("stop").arg(&self.folder).status();
    }
}

#[cfg(feature = "postgres")]
#[test]
fn a_lost_password_of_the_database_at_night() {
    sent_to("password authentication failed", "The database's password is lost");
    let mut operator = Operator::new(Place::new());
    let server = Server::start(&operator.place);
    let host = server.url.split_once('@').unwrap().1.to_owned();
    let game = format!("postgres://game_server@{host}");
    operator.means("postgres://owner@db.example/game", &server.url);
    operator.means("postgres://game_server@db.example/game", &game);
    operator.means("a new one", "found-again");
    let owner = |line: &str| {
        let ran = operator.shell(&format!("psql {} -qAtc \"{line}\"", server.url));
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    // A role whose password counts, on a server that believes everybody else.
    owner("CREATE ROLE game_server LOGIN PASSWORD 'nobody knows it any more'");
    let rules = server.folder.join("data/pg_hba.conf");
    let trusting = fs::read_to_string(&rules).unwrap();
    let rule = "host all game_server 127.0.0.1/32 scram-sha-256\n";
    fs::write(&rules, rule.to_owned() + &trusting).unwrap();
    owner("SELECT pg_reload_conf()");
    operator.place.ok(&["migrate", "--grant", "game_server", "--store", &server.url]);

    // The server reads its rules again when it gets to it.
    let mut looks = (0..1000).map(|_| operator.place.run(&["list", "--store", &game]));
    let locked_out = looks.find(|ran| ran.code == 3).expect("the rule comes into force");
    assert!(locked_out.stderr.contains("password"), "{locked_out:?}");
    operator.does(
        "psql postgres://owner@db.example/game -c \"ALTER ROLE game_server PASSWORD 'a new one'\"",
    );
    let shown = operator.does(
        "PGPASSWORD='a new one' profilestore status --store postgres://game_server@db.example/game",
    );
    assert!(shown.contains("all is well"), "{shown}");
}
