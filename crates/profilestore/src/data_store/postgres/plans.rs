//! How the database finds the rows of each statement: a test. No statement may read more when a
//! table grows, whatever the planner believes about the table at the moment at which it plans.
//!
//! A plan is made once a connection and kept. So a plan that was made while the tables were empty
//! must do when they are large, and so must one that was made before the first `ANALYZE`, or after
//! one of empty tables.

use serde_json::Value as Json;
use tokio_postgres::SimpleQueryMessage;

use super::{
    PostgresOptions,
    connect::{Conn, Dialer},
    load, lone, migrate, reader, remembered, statements, sweep,
};
use crate::env::Env;

macro_rules! statements {
    ($($file:ident: $($name:ident),+;)+) => {
        [$($((concat!(stringify!($file), "::", stringify!($name)), $file::$name)),+),+]
    };
}

const STATEMENTS: [(&str, &str); 63] = statements! {
    load: HEADS, HEADS_CHANGED, HEADS_CHECKED, HOLDERS, SERVERS, SERVERS_CHECKED, SERVERS_CHANGED, SERVERS_REHOSTED, MESSAGES, INBOXES, USED, VERSIONS, HISTORY, FACTS, EMPTY_HEADS;
    statements: INSERT_HEADS, UPDATE_DATA, UPDATE_REST, UPDATE_ALL, KEEP_VERSIONS, PIN_VERSIONS, FORGET_USERS, ADD_USERS, RECEIPTS,
        REMOVE_MESSAGES, EDIT_MESSAGES, INSERT_MESSAGES, ERASE_VERSIONS, INSERT_LINKS, ERASE_LINKS, ERASE_RECEIPTS, ERASE_MESSAGES, INSERT_SERVERS,
        RENEW_SERVERS, REHOST_SERVERS, BURY_SERVERS, FORGET_NOTICES, INSERT_OUTCOMES, LEAVE_NOTICES, INBOXES, VALUES, NOTICES;
    lone: OWN_SAVE, SAVE, SAVE_AND_KEEP;
    remembered: CHANGE, CHANGE_AND_SAVE;
    reader: NOW, SERVERS, VERSION_NUMBERED, VERSION_LABELLED, VERSIONS_UP, VERSIONS_DOWN, LINKS;
    sweep: KEYS, VERSIONS, LINKS, RECEIPTS, OUTCOMES, UNTIMED, FORGET_OUTCOMES, SERVERS, NOTICES;
};

/// What a statement may look through, because that is what it is for.
const MEANT: [(&str, &str); 16] = [
    // Every server row is what is asked for.
    ("reader::SERVERS", "server"),
    // The kept versions of one key: a label has no index, and is looked up by hand.
    ("reader::VERSION_LABELLED", "version"),
    // Those of a time, from where the page begins.
    ("reader::VERSIONS_UP", "version"),
    ("reader::VERSIONS_DOWN", "version"),
    // A piece of a sweep: what lies between two keys.
    ("sweep::VERSIONS", "version"),
    ("sweep::LINKS", "link"),
    ("sweep::RECEIPTS", "receipt"),
    // Once a sweep.
    ("sweep::SERVERS", "server"),
    ("sweep::NOTICES", "notice"),
    // `meta` has three rows.
    ("reader::NOW", "meta"),
    ("load::FACTS", "meta"),
    ("lone::OWN_SAVE", "meta"),
    ("lone::SAVE", "meta"),
    ("lone::SAVE_AND_KEEP", "meta"),
    ("remembered::CHANGE", "meta"),
    ("remembered::CHANGE_AND_SAVE", "meta"),
];

/// The primary key of each table: a look-up that names all of it finds one row at most.
const KEYS: [(&str, &[&str]); 9] = [
    ("head", &["store", "scope", "key"]),
    ("version", &["store", "scope", "key", "number"]),
    ("link", &["store", "scope", "key", "number"]),
    ("profile_user", &["user_id", "store", "scope", "key"]),
    ("message", &["store", "scope", "key", "number"]),
    ("receipt", &["store", "scope", "key", "digest"]),
    ("server", &["id"]),
    ("notice", &["server", "store", "scope", "key"]),
    ("settled", &["id"]),
];

#[derive(Debug, Clone, Copy)]
enum Stage {
    Empty,
    EmptyAndAnalyzed,
    Rows(u32),
}

/// Makes a store whose tables hold so much, and gives a connection to it as a game server has it.
async fn made(stage: Stage) -> Conn {
    let url = std::env::var("PROFILESTORE_TEST_POSTGRES")
        .expect("this test needs a PostgreSQL server: run it through ./test or scripts/servers.sh");
    let options: PostgresOptions =
        format!("{url}?schema=t_{}", Env::system().uuid().simple()).parse().expect("a URL");
    assert!(migrate::migrate(&options, None).await.expect("the tables are made"));
    let conn = Dialer::new(options).connect().await.expect("the server answers");
    for (table, _) in KEYS {
        conn.batch(&format!("ALTER TABLE {table} SET (autovacuum_enabled = false)"))
            .await
            .expect("the table is there");
    }
    match stage {
        Stage::Empty => {}
        Stage::EmptyAndAnalyzed => {
            for (table, _) in KEYS {
                conn.batch(&format!("VACUUM ANALYZE {table}")).await.expect("the table is there");
            }
        }
        Stage::Rows(rows) => {
            let sql = format!(
                "INSERT INTO head (store, scope, key) SELECT 's', 'g', 'k' || i FROM generate_series(1, {rows}) i;
                 INSERT INTO version SELECT 's', 'g', 'k1', i, 0, 0, 0, 0, 0, '', '', NULL, 0, 'x' FROM generate_series(1, {rows}) i;
                 INSERT INTO link SELECT 's', 'g', 'k1', i, 0, '{{}}' FROM generate_series(1, {rows}) i;
                 INSERT INTO profile_user SELECT 1, 's', 'g', 'k' || i FROM generate_series(1, {rows}) i;
                 INSERT INTO message SELECT 's', 'g', 'k1', i, gen_random_uuid(), gen_random_uuid(), 0, 0, 0, false, 'n', 'x'
                     FROM generate_series(1, {rows}) i;
                 INSERT INTO receipt SELECT 's', 'g', 'k1', gen_random_uuid(), gen_random_uuid(), 0 FROM generate_series(1, {rows}) i;
                 INSERT INTO server SELECT gen_random_uuid(), 0, '', 0, 0, 0, 0 FROM generate_series(1, {rows}) i;
                 INSERT INTO notice SELECT (SELECT id FROM server LIMIT 1), 's', 'g', 'k' || i, gen_random_uuid()
                     FROM generate_series(1, {rows}) i;
                 INSERT INTO settled SELECT gen_random_uuid(), 0, false FROM generate_series(1, {rows}) i"
            );
            conn.batch(&sql).await.expect("the rows are made");
        }
    }
    conn
}

/// The plan that the connection keeps for a statement.
async fn plan(conn: &Conn, sql: &'static str) -> Json {
    // Held, because the statement is given up when it is dropped.
    let _statement = conn.prepare(sql).await.expect("a statement that the server knows");
    let named = "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements WHERE \
        statement = $1";
    let rows = conn.query(named, &[&sql]).await.expect("the statement is known");
    let (name, params): (String, i32) = (rows[0].get(0), rows[0].get(1));
    let nulls = vec!["NULL"; usize::try_from(params).unwrap()].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let explain = format!("EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE {name}{nulls}");
    let answer = conn.client.simple_query(&explain).await.expect("a plan");
    let text = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    serde_json::from_str::<Json>(text.expect("a plan")).expect("JSON")[0]["Plan"].clone()
}

/// What in a plan reads more when a table grows. `sorted`: all that this node finds is sorted
/// before a `LIMIT` cuts it.
fn growing(statement: &str, node: &Json, sorted: bool, found: &mut Vec<String>) {
    let text = |field: &str| node[field].as_str().unwrap_or_default();
    let (kind, table) = (text("Node Type"), text("Relation Name"));
    let meant = MEANT.contains(&(statement, table));
    if kind.ends_with("Scan") && !table.is_empty() && !meant {
        let bitmap = &node["Plans"][0];
        let by_index = if kind == "Bitmap Heap Scan" { bitmap } else { node };
        let cond = by_index["Index Cond"].as_str().unwrap_or_default();
        let key = KEYS.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, key)| key);
        let one_row = !key.is_empty() && key.iter().all(|column| names(cond, column));
        if cond.is_empty() {
            found.push(format!("{statement}: {kind} of all of `{table}`"));
        } else if !text("Filter").is_empty() && !one_row {
            found.push(format!(
                "{statement}: of what {kind} of `{table}` finds by {cond}, most may be left out \
                    by {}",
                text("Filter")
            ));
        }
    }
    if !text("Join Filter").is_empty() && !MEANT.iter().any(|(name, _)| *name == statement) {
        found.push(format!(
            "{statement}: {kind} compares each with each by {}",
            text("Join Filter")
        ));
    }
    if sorted && table == "version" && statement != "reader::VERSION_LABELLED" {
        found.push(format!("{statement}: all of a key's versions are sorted for one page"));
    }
    let paged = kind == "Limit";
    for child in node["Plans"].as_array().into_iter().flatten() {
        let sorts = child["Node Type"] == "Sort";
        growing(statement, child, (paged && sorts) || (sorted && !paged), found);
    }
}

/// Whether a condition is about a column.
fn names(cond: &str, column: &str) -> bool {
    cond.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == column)
}

/// A save that took 10,000 messages needed 23.6 s: each message was looked for in the whole inbox.
#[tokio::test]
async fn no_statement_reads_more_when_a_table_grows_whatever_the_planner_believes() {
    let mut found = Vec::new();
    for stage in [Stage::Empty, Stage::EmptyAndAnalyzed, Stage::Rows(20), Stage::Rows(5000)] {
        let conn = made(stage).await;
        for (name, sql) in STATEMENTS {
            let mut growth = Vec::new();
            growing(name, &plan(&conn, sql).await, false, &mut growth);
            found.extend(growth.into_iter().map(|growth| format!("{stage:?}: {growth}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A change of a lease by one statement read the value of its profile, however large.
#[test]
fn a_change_of_the_lease_reads_no_value() {
    for read in ["h.*", "h.value", "h.checksum"] {
        assert!(!remembered::CHANGE.contains(read), "{}", remembered::CHANGE);
    }
}

/// The answer to a lone save read the value back that it had just written.
#[test]
fn a_lone_save_does_not_read_what_it_wrote() {
    for sql in [lone::OWN_SAVE, lone::SAVE, lone::SAVE_AND_KEEP] {
        let (_, answer) = sql.split_once(" RETURNING ").expect("an answer");
        for read in ["h.*", "h.value", "h.users", "h.author"] {
            assert!(!answer.contains(read), "{answer}");
        }
    }
}

/// The first of these tests knows all statements.
#[test]
fn every_statement_is_looked_at() {
    let files = [
        ("load", include_str!("load.rs")),
        ("lone", include_str!("lone.rs")),
        ("remembered", include_str!("remembered.rs")),
        ("statements", include_str!("statements.rs")),
        ("reader", include_str!("reader.rs")),
        ("sweep", include_str!("sweep.rs")),
    ];
    for (file, text) in files {
        let consts =
            text.lines().filter_map(|line| line.split_once("const ")?.1.split_once(": &str"));
        for (name, _) in consts.filter(|(name, _)| !name.starts_with("BEGIN")) {
            let name = format!("{file}::{name}");
            assert!(
                STATEMENTS.iter().any(|(known, _)| *known == name),
                "a statement that is not looked at: {name}"
            );
        }
    }
}
