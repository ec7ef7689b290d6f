//! Files of tests.

use std::{fs, path::Path, sync::Arc, time::Duration};

use profilestore_luau::{Game, Limits, Outcome, SpecOptions, SpecReport, Time, Tree};

pub(super) fn test(source: &str, set: impl FnOnce(&mut SpecOptions)) -> SpecReport {
    test_within(Limits::default(), source, set)
}

pub(super) fn test_within(
    limits: Limits,
    source: &str,
    set: impl FnOnce(&mut SpecOptions),
) -> SpecReport {
    let folder = tempfile::tempdir().expect("a folder");
    let project = r#"{ "tree": { "$className": "DataModel",
        "ServerScriptService": { "$path": "src" } } }"#;
    fs::write(folder.path().join("default.project.json"), project).expect("a file");
    fs::create_dir(folder.path().join("src")).expect("a folder");
    fs::write(folder.path().join("src/Some.spec.luau"), source).expect("a file");
    let tree = Arc::new(Tree::read(folder.path()).expect("a tree"));
    let mut options = SpecOptions::default();
    set(&mut options);
    let game = Game::builder().time(Time::Virtual).limits(limits).tree(tree.clone());
    game.test(&tree.specs()[0], &options).expect("the tests run")
}

/// Each test: its name, and what came of it in a word.
pub(super) fn words(report: &SpecReport) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed(_) => "failed",
        _ => "skipped",
    };
    report
        .results
        .iter()
        .map(|result| format!("{} {}", result.path.join("/"), word(&result.outcome)))
        .collect()
}

pub(super) fn problem(report: &SpecReport, at: usize) -> &str {
    match &report.results[at].outcome {
        Outcome::Failed(problem) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_test_that_never_waits_is_stopped_and_the_others_go_on() {
    let mut limits = Limits::default();
    limits.step = Duration::from_secs(2);
    let report = test_within(
        limits,
        "return function()
            it('runs on', function() while true do end end)
            it('runs on in spite of pcall', function()
                while true do pcall(function() while true do end end) end
            end)
            it('ends its thread', function() task.cancel(coroutine.running()) task.wait() end)
            it('is fine', function() end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        [
            "Some/runs on failed",
            "Some/runs on in spite of pcall failed",
            "Some/ends its thread failed",
            "Some/is fine passed"
        ]
    );
    assert!(problem(&report, 0).contains("was stopped"), "{report:?}");
    let told = report.results[0].lines.iter().any(|(_, text)| text.contains("the script ran for"));
    assert!(told, "{report:?}");
    let report = test_within(limits, "while true do end", |_| {});
    assert!(words(&report).contains(&"(the file) failed".to_owned()), "{report:?}");
}

/// The run never ended: as long as calls are answered at once, no virtual time passes.
#[test]
fn what_the_tests_leave_behind_is_bounded_in_real_time() {
    let mut limits = Limits::default();
    limits.step = Duration::from_millis(500);
    let report = test_within(
        limits,
        "local Messages = game:GetService('MessagingService')
        return function()
            it('leaves a loop', function()
                task.defer(function()
                    while true do
                        Messages:SubscribeAsync('topic', print):Disconnect()
                    end
                end)
            end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        ["Some/leaves a loop passed", "(what the tests left behind) failed"],
        "{report:?}"
    );
    let said = "threads that tests left behind still ran 3s after the last test, and were stopped";
    assert!(problem(&report, 1).starts_with(said), "{report:?}");
}

#[test]
fn a_test_speaks_for_a_players_client() {
    let report = test(
        "return function()
            it('shows what is bought', function()
                local buy, shown = Instance.new('RemoteEvent'), Instance.new('RemoteEvent')
                buy.OnServerEvent:Connect(function(player, what) shown:FireClient(player, what) end)
                local client = simulate.client(simulate.join(7))
                client.fire(buy, 'Sword')
                expect(client.event(shown):Wait()).to.equal('Sword')
                expect(function() simulate.client(nil) end).to.throw('must be a Player')
            end)
        end",
        |_| {},
    );
    assert_eq!(words(&report), ["Some/shows what is bought passed"]);
}

#[test]
fn a_test_makes_happen_what_the_engine_would() {
    let report = test(
        "return function()
            it('touches', function()
                local coin, touched = Instance.new('Part'), {}
                coin.Touched:Connect(function(by) table.insert(touched, by.Name) end)
                local player = simulate.join(7)
                local character = player.Character or player.CharacterAdded:Wait()
                simulate.fire(coin, 'Touched', character.Head)
                expect(touched[1]).to.equal('Head')
            end)
            it('chats', function()
                local said
                local player = simulate.join(8)
                player.Chatted:Connect(function(text) said = text end)
                simulate.fire(player, 'Chatted', '/give')
                expect(said).to.equal('/give')
            end)
            it('refuses what happens by itself', function()
                expect(function() simulate.fire(workspace, 'ChildAdded') end).to.throw('no event ChildAdded')
                expect(function() simulate.fire(5, 'Touched') end).to.throw('must be an Instance')
            end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        ["Some/touches passed", "Some/chats passed", "Some/refuses what happens by itself passed"]
    );
}

#[test]
fn a_test_answers_in_the_networks_place() {
    let report = test(
        "return function()
            local Http = game:GetService('HttpService')
            it('has none by itself', function()
                expect(function() Http:GetAsync('http://localhost') end).to.throw('no network')
            end)
            it('answers', function()
                local asked = {}
                simulate.http(function(request)
                    table.insert(asked, request)
                    if request.Method == 'POST' then
                        return { StatusCode = 404, StatusMessage = 'Not Found' }
                    end
                    return 'hello'
                end)
                expect(Http:GetAsync('https://a.example/x')).to.equal('hello')
                expect(function() Http:PostAsync('https://a.example', '{}') end).to.throw('HTTP 404')
                local response = Http:RequestAsync({ Url = 'http://b.example', Headers = { Key = 'v' } })
                expect(response.Success and response.StatusCode).to.equal(200)
                expect(asked[2].Body).to.equal('{}')
                expect(asked[3].Headers.Key).to.equal('v')
                expect(function() Http:GetAsync('ftp://a') end).to.throw('begins with http')
                simulate.http(nil)
                expect(function() Http:GetAsync('http://localhost') end).to.throw('no network')
            end)
        end",
        |_| {},
    );
    assert_eq!(words(&report), ["Some/has none by itself passed", "Some/answers passed"]);
}

#[test]
fn an_answer_without_a_message_has_that_of_its_status() {
    let report = test(
        "return function()
            it('is not found', function()
                local Http = game:GetService('HttpService')
                simulate.http(function() return { StatusCode = 404 } end)
                expect(function() Http:GetAsync('https://a.example') end).to.throw('HTTP 404 (Not Found)')
                expect(Http:RequestAsync({ Url = 'https://a.example' }).StatusMessage).to.equal('Not Found')
            end)
        end",
        |_| {},
    );
    assert_eq!(words(&report), ["Some/is not found passed"]);
}

#[test]
fn the_tests_of_a_whole_game_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/games/services");
    let tree = Arc::new(Tree::read(&folder).expect("a tree"));
    let specs = tree.specs();
    let game = Game::builder().time(Time::Virtual).tree(tree);
    let report = game.test(&specs[0], &SpecOptions::default()).expect("the tests run");
    assert_eq!(
        words(&report),
        [
            "CoinsService/Give/adds whole coins passed",
            "CoinsService/Give/refuses none, and parts of coins passed",
            "CoinsService/Give/stops at the limit, which is saved passed",
            "CoinsService/Give/is not written yet skipped",
            "CoinsService/says no to a player whose data is not there passed",
        ],
        "{report:?}"
    );
}

#[test]
fn what_runs_before_and_after_runs_from_outside_to_inside_and_back() {
    let report = test(
        "local seen = {}
        local function note(what)
            return function(context)
                table.insert(seen, what)
                context.last = what
            end
        end
        return function()
            beforeAll(note('A'))
            beforeEach(note('a'))
            afterEach(note('z'))
            afterAll(function() print(table.concat(seen)) end)
            describe('inner', function()
                beforeAll(note('B'))
                beforeEach(note('b'))
                afterEach(note('y'))
                it('one', function(context)
                    table.insert(seen, '1')
                    expect(context.last).to.equal('b')
                end)
                it('two', function() table.insert(seen, '2') end)
            end)
            it('three', function() table.insert(seen, '3') end)
            it('last', function() expect(table.concat(seen)).to.equal('ABab1yzab2yza3za') end)
        end",
        |_| {},
    );
    assert!(report.failures().next().is_none(), "{report:?}");
    assert_eq!(report.results.len(), 4);
}

#[test]
fn a_failure_says_what_was_expected_and_where() {
    let report = test(
        "return function()
            it('compares', function()
                expect(1).to.equal(2)
            end)
            it('turns around', function() expect('a').never.to.equal('a') end)
            it('sees an error of another thread', function()
                task.spawn(function() error('beside') end)
            end)
            it('waits', function() Instance.new('BindableEvent').Event:Wait() end)
            it('goes on', function() print('after') expect({ a = { 1 } }).toEqual({ a = { 1 } }) end)
            describe('broken', function() nothing() end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        [
            "Some/compares failed",
            "Some/turns around failed",
            "Some/sees an error of another thread failed",
            "Some/waits failed",
            "Some/goes on passed",
            "Some/broken/(its description) failed",
        ]
    );
    assert!(problem(&report, 0).contains("Some.spec.luau:3: expected 1 to equal 2"), "{report:?}");
    assert!(problem(&report, 1).contains("expected \"a\" not to equal \"a\""), "{report:?}");
    assert!(problem(&report, 2).contains("beside"), "{report:?}");
    assert!(problem(&report, 3).contains("still waits after 600 s"), "{report:?}");
    assert!(problem(&report, 3).contains("Some.spec.luau:9"), "{report:?}");
    assert!(!format!("{report:?}").contains("profilestore/"), "{report:?}");
    assert_eq!(report.results[4].lines.len(), 1);
}

#[test]
fn focus_and_skip_choose_tests() {
    let focused = "return function()
        it('plain', function() error('runs') end)
        describe('block', function()
            itFOCUS('chosen', function() end)
            it('beside', function() error('runs') end)
        end)
        describeFOCUS('whole', function() it('in it', function() end) end)
        describe('off', function() SKIP() it('out', function() error('runs') end) end)
    end";
    assert_eq!(
        words(&test(focused, |_| {})),
        [
            "Some/plain skipped",
            "Some/block/chosen passed",
            "Some/block/beside skipped",
            "Some/whole/in it passed",
            "Some/off/out skipped",
        ]
    );
    let report = test(
        "return function() it('one', function() end) it('two', function() error('no') end) end",
        |options| options.only = Some("Some > one".to_owned()),
    );
    assert_eq!(words(&report), ["Some/one passed"]);
}

/// `it.each` was "attempt to index function with 'each'".
#[test]
fn words_of_jest_choose_tests_and_make_one_for_each_row() {
    let rows = "return function()
        local seen = {}
        it.each({ { 1, 'a' }, { 2, 'b' } })('%d is %s (100%%, %s)', function(number, text)
            expect(text).toBe(if number == 1 then 'a' else 'b')
        end)
        test.each({ 5, { n = 6 } })('row %s', function(row) table.insert(seen, row) end)
        describe.each({ 'x' })('block %s', function(name)
            it('knows ' .. name, function() expect(seen[2]).toEqual({ n = 6 }) end)
        end)
        it.skip('off', function() error('runs') end)
        it.todo('to be written')
        describe.skip('out', function() it('in it', function() error('runs') end) end)
    end";
    assert_eq!(
        words(&test(rows, |_| {})),
        [
            "Some/1 is a (100%, %s) passed",
            "Some/2 is b (100%, %s) passed",
            "Some/row 5 passed",
            "Some/row { n = 6 } passed",
            "Some/block x/knows x passed",
            "Some/off skipped",
            "Some/to be written skipped",
            "Some/out/in it skipped",
        ]
    );
    let focused = "return function()
        it.only.each({ 1, 2 })('chosen %s', function() end)
        describe.only('block', function() it('in it', function() end) end)
        it('beside', function() error('runs') end)
    end";
    assert_eq!(
        words(&test(focused, |_| {})),
        [
            "Some/chosen 1 passed",
            "Some/chosen 2 passed",
            "Some/block/in it passed",
            "Some/beside skipped"
        ]
    );
}

#[test]
fn blocks_without_a_chosen_test_run_no_hooks_and_report_nothing() {
    let report = test(
        "return function()
            itSKIP('later', function() end)
            describe('other', function()
                beforeAll(function() error('runs') end)
                afterAll(function() error('runs') end)
                it('is left out', function() end)
                itSKIP('is left out too', function() end)
            end)
            describe('one', function()
                local begun = false
                beforeAll(function() begun = true end)
                it('is chosen', function() assert(begun) end)
                itSKIP('is chosen later', function() end)
            end)
        end",
        |options| options.only = Some("is chosen".to_owned()),
    );
    assert_eq!(words(&report), ["Some/one/is chosen passed", "Some/one/is chosen later skipped"]);
}

#[test]
fn matchers_hold_and_refuse() {
    let report = test(
        "return function()
            it('holds', function()
                expect(1).to.be.a('number')
                expect(Vector3.zero).to.be.a('Vector3')
                expect(nil).never.to.be.ok()
                expect(5).to.be.near(5.05, 0.1)
                expect(function() error('nope') end).to.throw('nope')
                expect(function() end).never.to.throw()
                expect(2).toBeGreaterThan(1)
                expect({ 1, 2 }).toContain(2)
                expect('abc').toHaveLength(3)
                expect(nil).toBeNil()
                expect({ a = 1 }).never.toEqual({ a = 1, b = 2 })
                expect.extend({ even = function(value) return { pass = value % 2 == 0, message = 'odd' } end })
                expect(2).to.be.even()
            end)
            local refused = {
                function() expect(1).to.be.a('string') end,
                function() expect(nil).to.be.ok() end,
                function() expect(5).to.be.near(6) end,
                function() expect(function() error('other') end).to.throw('nope') end,
                function() expect(1).toBeGreaterThan(1) end,
                function() expect({ 1 }).toContain(2) end,
                function() expect({ a = 1 }).toEqual({ a = 2 }) end,
                function() expect(3).to.be.even() end,
                function() expect(3).to.be.unheard_of() end,
            }
            for n, body in refused do
                it(`refuses {n}`, function() assert(not pcall(body)) end)
            end
        end",
        |_| {},
    );
    assert!(report.failures().next().is_none(), "{report:?}");
    assert_eq!(report.results.len(), 10);
}

#[test]
fn a_file_that_cannot_be_loaded_is_a_failure() {
    let report = test("return function(", |_| {});
    assert_eq!(words(&report), ["(the file) failed"]);
    assert!(problem(&report, 0).contains("Some.spec.luau:1"), "{report:?}");
}

#[test]
fn players_join_and_leave_when_a_test_says_so() {
    let report = test(
        "local Players = game:GetService('Players')
        return function()
            it('joins and leaves', function()
                local left
                Players.PlayerRemoving:Connect(function(player) left = player.UserId end)
                local player = simulate.join(3)
                expect(player.UserId).to.equal(3)
                expect(#Players:GetPlayers()).to.equal(1)
                simulate.leave(3)
                expect(left).to.equal(3)
            end)
            it('buys', function()
                local bought
                game:GetService('MarketplaceService').ProcessReceipt = function(receipt)
                    bought = receipt.ProductId
                    return Enum.ProductPurchaseDecision.PurchaseGranted
                end
                simulate.join(4)
                simulate.buy(4, 55)
                task.wait(1)
                expect(bought).to.equal(55)
            end)
        end",
        |_| {},
    );
    assert!(report.failures().next().is_none(), "{report:?}");
}
