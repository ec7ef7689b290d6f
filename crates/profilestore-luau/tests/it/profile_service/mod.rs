//! The module ProfileService: what both editions of its documentation promise, live and mock, and
//! what games can observe beyond that.

mod conflicts;
mod profiles;
mod timing;
mod updates;
mod views;

use profilestore_luau::GameBuilder;

use crate::{Ran, run};

/// What the scripts begin with. `Store(index, template)` makes a store, `at(seconds)` waits until a
/// time that all servers share, `fails(text, function, ...)` demands an error, `server` is this
/// server's number where there are several.
fn prelude(mock: bool, servers: usize) -> String {
    let which = if mock { ".Mock" } else { "" };
    let role = if servers > 1 {
        "local role = ProfileService.GetProfileStore('Roles', {}):LoadProfileAsync('role')
        server = role.MetaData.SessionLoadCount role:Release()"
    } else {
        ""
    };
    let prelude = format!(
        "ProfileService = require('ProfileService')
        mock = {mock}
        function Store(index, template) return ProfileService.GetProfileStore(index or 'PlayerData', template or {{}}){which} end
        function at(seconds) while os.clock() < 100 + seconds do task.wait(100 + seconds - os.clock()) end end
        function fails(text, f, ...)
            local ok, problem = pcall(f, ...)
            assert(not ok and type(problem) == 'string' and problem:find(text, 1, true), tostring(problem))
        end
        function gifts(list)
            local texts = {{}}
            for _, update in list do table.insert(texts, update[1] .. ':' .. tostring(update[2].n)) end
            return table.concat(texts, ' ')
        end
        {role}"
    );
    // On one line, so that the script's own lines are counted from 1.
    prelude.split_whitespace().collect::<Vec<_>>().join(" ") + " "
}

fn play(
    mock: bool,
    servers: usize,
    source: &str,
    set: impl FnOnce(GameBuilder) -> GameBuilder,
) -> Ran {
    run(&(prelude(mock, servers) + source), |game| set(game.servers(servers)))
}

/// Runs a script on a live store, gives what it printed.
#[track_caller]
fn live(source: &str) -> Vec<String> {
    play(false, 1, source, |game| game).succeeded()
}

/// Runs a script on a live store and on a mock, which must print the same.
#[track_caller]
fn both(source: &str) -> Vec<String> {
    let printed = live(source);
    assert_eq!(play(true, 1, source, |game| game).succeeded(), printed, "the mock does the same");
    printed
}

/// Runs a script on two servers; what it printed begins with the server's own number.
#[track_caller]
fn two(source: &str) -> Vec<String> {
    play(
        false,
        2,
        &format!("local say = print local function print(...) say(server, ...) end {source}"),
        |game| game,
    )
    .succeeded()
}
