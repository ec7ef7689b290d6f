//! What a test that fails says.

use std::time::Duration;

use profilestore_luau::{Limits, Line};

use crate::{
    run,
    specs::{problem, test, test_within, words},
};

#[test]
fn unequal_tables_are_told_by_the_places_where_they_differ() {
    let report = test(
        r#"return function()
            local function profile()
                return {
                    Coins = 100, Items = { Sword = 1, Shield = 1 }, List = { 1, 2, 3 },
                    At = Vector3.new(1, 2, 3), Rate = 0 / 0, Part = workspace,
                    Mixed = { 1, x = 2 }, ["a key"] = true,
                }
            end
            it("few", function()
                local got = profile()
                got.Coins, got.Items.Shield, got.List[3], got["a key"] = 70, nil, 4, nil
                expect(got).toEqual(profile())
            end)
            it("many", function()
                expect({ 1, 2, 3, 4, 5, 6, 7 }).toStrictEqual({})
            end)
            it("objects", function()
                local got = profile()
                got.At, got.Part, got.Rate = Vector3.new(1, 2, 4), game, print
                expect(got).toEqual(profile())
            end)
            it("functions", function() expect({ f = print }).toEqual({ f = warn }) end)
            it("long texts", function()
                local same = string.rep("a", 100)
                expect({ text = same .. "b" }).toEqual({ text = same .. "c" })
            end)
            it("deep", function()
                local function deep(n, value)
                    return if n == 0 then value else { x = deep(n - 1, value) }
                end
                expect(deep(50, 1)).toEqual(deep(50, 2))
            end)
            it("other tables", function() expect(profile()).to.equal(profile()) end)
            it("equal ones that hold themselves", function()
                local one, other = {}, { x = {} }
                one.x, other.x.x = one, other
                expect(profile()).toEqual(profile())
                expect(one).toEqual(other)
            end)
        end"#,
        |_| {},
    );
    for (at, said) in [
        (
            0,
            "expected equal tables: at .Coins: 70, expected 100; at .Items.Shield: nothing, \
             expected 1; at .List[3]: 4, expected 3; at [\"a key\"]: nothing, expected true\n",
        ),
        (1, "at [5]: 5, expected nothing; and in more places\n"),
        (
            2,
            "at .At: Vector3(1, 2, 4), expected Vector3(1, 2, 3); at .Part: DataModel Game, \
             expected Workspace Workspace; at .Rate: a function, expected nan\n",
        ),
        (3, "at .f: a function, expected another\n"),
        (4, "at .text: \u{2026} \"aaaaaaaaaab\", expected \u{2026} \"aaaaaaaaaac\"\n"),
        (5, "at .x.x.x.x.x.x.x.x: { x = "),
        (6, "they are two tables, and toEqual compares what is in them"),
    ] {
        assert!(problem(&report, at).contains(said), "{}", problem(&report, at));
    }
    assert_eq!(report.failures().count(), 7, "{report:?}");
    assert!(!format!("{report:?}").contains("0x"), "{report:?}");
}

/// A test that compared tables of a thousand keys some thousand times was stopped: each comparison
/// made the text of a failure.
#[test]
fn what_holds_is_not_shown() {
    let report = test(
        r#"return function()
            local shown = 0
            local function value(n)
                return setmetatable({ n }, { __tostring = function()
                    shown += 1
                    return `value {n}`
                end })
            end
            it("holds", function()
                local one = value(1)
                expect(one).to.equal(one)
                expect(one).toBe(one)
                expect(one).toEqual(value(1))
                expect(one).never.toBe(value(1))
                expect(one).never.toEqual(value(2))
                assert(shown == 0, `shown {shown} times`)
            end)
            it("one", function() expect(value(1)).toBe(value(1)) end)
            it("equal", function() expect(value(1)).never.toEqual(value(1)) end)
            it("mixed", function()
                local got = { 2, 1, b = 1, a = 1, [0.5] = 1, [true] = 1 }
                expect(got).toBe(nil)
            end)
        end"#,
        |_| {},
    );
    for (at, said) in [
        (1, "expected value 1 to equal value 1: they are two tables, and toEqual compares"),
        (2, "expected value 1 not to equal value 1\n"),
        (3, "expected { [0.5] = 1, 2, 1, a = 1, b = 1, [true] = 1 } to equal nil\n"),
    ] {
        assert!(problem(&report, at).contains(said), "{}", problem(&report, at));
    }
    assert_eq!(report.failures().count(), 3, "{report:?}");
}

/// `toBe` failed: "expected nan to equal nan".
#[test]
fn nan_is_nan_to_the_matchers_of_jest() {
    let report = test(
        "return function()
            it('holds', function()
                expect(0 / 0).toBe(0 / 0)
                expect(0 / 0).toEqual(0 / 0)
                expect({ rate = 0 / 0 }).toEqual({ rate = 0 / 0 })
                expect(0 / 0).never.toBe(1)
                expect(1).never.toEqual(0 / 0)
                expect(0 / 0).never.to.equal(0 / 0)
            end)
            it('refuses', function() expect(0 / 0).toBe(1) end)
        end",
        |_| {},
    );
    assert_eq!(words(&report), ["Some/holds passed", "Some/refuses failed"], "{report:?}");
    assert!(problem(&report, 1).contains("expected nan to equal 1\n"), "{report:?}");
}

/// Two buffers of the same bytes were not equal.
#[test]
fn buffers_are_equal_by_what_is_in_them() {
    let report = test(
        "return function()
            local of = buffer.fromstring
            it('holds', function()
                expect(of('abc')).toEqual(of('abc'))
                expect({ data = of('') }).toStrictEqual({ data = of('') })
                expect(of('abc')).never.toEqual(of('abd'))
                expect(of('abc')).never.toEqual('abc')
                expect(of('abc')).never.toBe(of('abc'))
            end)
            it('a byte', function() expect(of('abc')).toEqual(of('aBc')) end)
            it('the length', function() expect(of('a')).toEqual(of('ab')) end)
            it('in a table', function()
                local deep = { x = { of('same'), of('abc') } }
                expect(deep).toEqual({ x = { of('same'), of('ab') } })
            end)
            it('two', function() expect(of('abc')).toBe(of('abc')) end)
        end",
        |_| {},
    );
    for (at, said) in [
        (
            1,
            "expected equal buffers: a buffer of 3 bytes with 0x62 at byte 1, expected a buffer \
             of 3 bytes with 0x42 at byte 1\n",
        ),
        (2, "a buffer of 1 byte, expected a buffer of 2 bytes with 0x62 at byte 1\n"),
        (
            3,
            "expected equal tables: at .x[2]: a buffer of 3 bytes with 0x63 at byte 2, expected a \
             buffer of 2 bytes\n",
        ),
        (4, "they are two buffers, and toEqual compares what is in them\n"),
    ] {
        assert!(problem(&report, at).contains(said), "{}", problem(&report, at));
    }
    assert_eq!(report.failures().count(), 4, "{report:?}");
}

/// Nothing was said of the blocks beside the test in focus.
#[test]
fn a_block_whose_description_fails_is_a_failure_whatever_is_in_focus() {
    for focus in ["fit", "it.only", "it.only.each({ 1 })"] {
        let report = test(
            &"return function()
                FOCUS('chosen', function() end)
                describe('broken', function() error('oops') end)
                describe('outer', function()
                    it('beside', function() error('runs') end)
                    describe('inner', function()
                        it('is declared before', function() error('runs') end)
                        error('oops')
                    end)
                end)
                describe.skip('off', function() error('runs') end)
            end"
            .replace("FOCUS", focus),
            |_| {},
        );
        assert_eq!(
            words(&report),
            [
                "Some/chosen passed",
                "Some/broken/(its description) failed",
                "Some/outer/beside skipped",
                "Some/outer/inner/(its description) failed",
            ],
            "{focus}: {report:?}"
        );
        assert!(problem(&report, 1).contains("oops"), "{report:?}");
    }
    let report = test(
        "return function()
            describe.only('chosen', function() it('runs', function() end) end)
            describe('broken', function() error('oops') end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        ["Some/chosen/runs passed", "Some/broken/(its description) failed"],
        "{report:?}"
    );
}

#[test]
fn a_thrown_table_is_told_by_its_content() {
    let report = test(
        "return function()
            it('throws', function() error({ code = 3, why = 'bad', { 1, 2 }, f = print }) end)
            it('matches', function()
                expect(function() error({ code = 3 }) end).to.throw('code = 3')
                expect(function() error({ code = 3 }) end).to.throw('code = 4')
            end)
        end",
        |_| {},
    );
    let said = "{ { 1, 2 }, code = 3, f = a function, why = \"bad\" }\nstack traceback:";
    assert!(problem(&report, 0).starts_with(said), "{report:?}");
    let said = "to throw \"code = 4\", and this was thrown: { code = 3 }";
    assert!(problem(&report, 1).contains(said), "{report:?}");
}

#[test]
fn a_test_that_never_waits_is_told_with_its_line() {
    let mut limits = Limits::default();
    limits.step = Duration::from_secs(2);
    let report = test_within(
        limits,
        "return function()
            it('runs on', function()
                while true do
                    local n = 1
                end
            end)
            it('runs on in a thread', function()
                task.spawn(function()
                    while true do end
                end)
            end)
        end",
        |_| {},
    );
    for (at, lines) in [(0, 3..=5), (1, 9..=9)] {
        let problem = problem(&report, at);
        assert!(problem.starts_with("the script ran for 2s"), "{problem}");
        let (_, places) = problem.split_once("stack traceback:").expect("places");
        let mut named = lines.map(|line| places.contains(&format!("Some.spec.luau:{line}")));
        assert!(named.any(|named| named), "{problem}");
    }
}

#[test]
fn a_late_error_is_the_fault_of_the_test_that_started_its_thread() {
    let report = test(
        "return function()
            afterAll(function() task.delay(3, function() error('of no test') end) end)
            it('leaves a thread', function()
                task.delay(0.5, function() error('too late') end)
            end)
            it('leaves a thread that waits again', function()
                task.spawn(function()
                    for _ = 1, 4 do task.wait(0.25) end
                    error('later still')
                end)
            end)
            it('only waits', function() task.wait(2) end)
            it('leaves one at the end', function()
                task.defer(function()
                    game:GetService('DataStoreService'):GetDataStore('Some'):GetAsync('key')
                    task.wait(2)
                    error('at the end')
                end)
            end)
            it('leaves one that is given up', function()
                task.delay(100, function() error('never') end)
            end)
        end",
        |_| {},
    );
    assert_eq!(
        words(&report),
        [
            "Some/leaves a thread failed",
            "Some/leaves a thread that waits again failed",
            "Some/only waits passed",
            "Some/leaves one at the end failed",
            "Some/leaves one that is given up passed",
            "(outside of the tests) failed",
        ]
    );
    for (at, said) in [(0, "too late"), (1, "later still"), (3, "at the end")] {
        let problem = problem(&report, at);
        assert!(problem.starts_with("after this test had ended, in a thread of it: "), "{problem}");
        assert!(problem.contains(said), "{problem}");
    }
    assert!(problem(&report, 5).contains("of no test"), "{report:?}");
    assert!(report.results[2].lines.is_empty(), "{report:?}");
}

#[test]
fn what_a_test_cannot_do_with_players_and_clients_is_named() {
    let report = test(
        "return function()
            it('names what is not there', function()
                expect(function() simulate.hop(1) end).to.throw('has no hop here; it has buy')
                expect(function() simulate.buy(99, 5) end).to.throw('player 99 has never joined')
                expect(function() simulate.leave(44) end).to.throw('player 44 has never joined')
                local remote = Instance.new('RemoteEvent')
                local client = simulate.client(simulate.join(7))
                expect(function() client:fire(remote) end).to.throw('write client.fire(')
                expect(function() client:event(remote) end).to.throw('write client.event(')
                client.fire(remote)
            end)
            it('lets a player leave who was kicked', function()
                simulate.join(8):Kick()
                task.wait()
                simulate.leave(8)
            end)
        end",
        |_| {},
    );
    assert!(report.failures().next().is_none(), "{report:?}");
}

#[test]
fn a_number_too_large_for_an_ordered_store_is_called_so() {
    let report = test(
        "return function()
            it('refuses', function()
                local store = game:GetService('DataStoreService'):GetOrderedDataStore('Some')
                local function set(value) return function() store:SetAsync('key', value) end end
                expect(set(2 ^ 63)).to.throw('is too large: an ordered data store holds')
                expect(set(-2 ^ 63)).to.throw('is too small')
                expect(set(1.5)).to.throw('holds whole numbers, and not 1.5')
            end)
        end",
        |_| {},
    );
    assert!(report.failures().next().is_none(), "{report:?}");
}

/// Twenty thousand lines were shown, in files of results too.
#[test]
fn of_a_long_traceback_the_first_and_the_last_lines_are_shown() {
    const OVERFLOW: &str = "local function f() return 1 + f() end\nf()";
    let report =
        test(&format!("return function() it('ends', function() {OVERFLOW} end) end"), |_| {});
    let errors = run(OVERFLOW, |game| game).recorder.texts(Line::Error);
    for (problem, place) in
        [(problem(&report, 0), "src/Some.spec.luau:1"), (errors[0].as_str(), "game:1")]
    {
        let lines: Vec<&str> = problem.lines().map(str::trim).collect();
        // The problem and the heading, 20 lines, what is left out, 10 lines.
        assert_eq!(lines.len(), 2 + 20 + 1 + 10, "{problem}");
        assert!(lines[0].ends_with("stack overflow"), "{problem}");
        assert!(lines[2].contains(place) && lines[21].contains(place), "{problem}");
        assert!(lines[22].starts_with("… ") && lines[22].ends_with(" more lines …"), "{problem}");
    }
}

#[test]
fn what_is_not_there_of_jest_is_named() {
    let report = test(
        "return function()
            it('mocks', function() jest.fn() end)
            it('other members of jest', function() jest.setTimeout(5) end)
            it('forms of a test', function() it.failing('x', function() end) end)
            it('members of expect', function() expect.anything() end)
        end",
        |_| {},
    );
    for (at, what) in [
        ":2: jest.fn is not emulated here; write a function that notes its calls in a table",
        ":3: jest.setTimeout is not emulated here",
        ":4: it has no failing here; it has each, only, skip, todo",
        ":5: expect.anything is not emulated here",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(problem(&report, at).contains(what), "{report:?}");
    }
}

/// The place was one in code of the machine's own.
#[test]
fn a_test_without_a_function_is_told_with_its_own_line() {
    let report = test(
        "return function()
            describe('a', function() it('x') end)
            describe('b', function() it('x', 5) end)
            describe('c', function() beforeEach() end)
        end",
        |_| {},
    );
    for (at, what) in [
        ":2: it \"x\" has no function; one that is still to be written is it.todo",
        ":3: Argument 2 of it must be a function, and not a number",
        ":4: Argument 1 missing or nil in beforeEach: a function is expected",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(problem(&report, at).contains(what), "{report:?}");
    }
}

/// A part of a number was "error converting Lua number to i64", and 0 and -1 joined.
#[test]
fn ids_that_no_player_or_product_has_are_refused_by_name() {
    let report = test(
        "return function()
            it('part', function() simulate.join(1.5) end)
            it('none', function() simulate.join(0) end)
            it('negative', function() simulate.join(-1) end)
            it('product', function() simulate.join(7) simulate.buy(7, 3.5) end)
            it('text', function() simulate.leave('x') end)
        end",
        |_| {},
    );
    for (at, what) in [
        ":2: simulate.join: a user id is a whole number from 1 on, and not 1.5",
        ":3: simulate.join: a user id is a whole number from 1 on, and not 0",
        ":4: simulate.join: a user id is a whole number from 1 on, and not -1",
        ":5: simulate.buy: a product id is a whole number from 1 on, and not 3.5",
        ":6: Argument 1 of simulate.leave must be a number, and not a string",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(problem(&report, at).contains(what), "{report:?}");
    }
}
