//! What a save, and a session, cost a game that is written in Luau, beside the bare encoding of the
//! same data. Everything runs on one thread, in virtual time, on a store in memory.
//!
//! `cargo bench -p profilestore-luau [-- cpu|memory|hour]`; `SESSIONS=1000` makes the hour smaller.

use std::{error::Error, fs, process::Command, sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{GameServer, data_store::MemoryStore, env::Env, storable::WRITTEN_BY_THE_RULE};
use profilestore_luau::{Game, Limits, Line, Output, Script, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How the script names sessions of either module.
const MODULES: [(&str, &str); 2] = [
    (
        "ProfileStore",
        "local store = require(game.ServerScriptService.ProfileStore).New('Bench', template)
        local function open(key) return store:StartSessionAsync(key) end
        local function saved(profile) return profile.OnAfterSave end",
    ),
    (
        "ProfileService",
        "local store = require(game.ServerScriptService.ProfileService).GetProfileStore('Bench', template)
        local function open(key) return store:LoadProfileAsync(key) end
        local function saved(profile) return profile.MetaTagsUpdated end",
    ),
];

/// A player's data of about so many bytes of JSON.
fn template(bytes: usize) -> String {
    format!(
        "local template = {{ Coins = 0, Name = 'A player', Settings = {{ Music = true, Volume = 0.5 }}, Items = {{}} }}
        local http = game:GetService('HttpService')
        while #http:JSONEncode(template) < {bytes} do
            for n = #template.Items + 1, #template.Items + 8 do
                table.insert(template.Items, {{ Id = n * 7919, Kind = `sword_{{n % 13}}`, Level = n % 50, Wear = n / 1000, Bound = n % 3 == 0 }})
            end
        end
        local size = #http:JSONEncode(template)"
    )
}

/// What the thread has used at a moment that the script marks.
#[derive(Debug, Clone)]
struct Mark {
    text: String,
    /// Microseconds of CPU.
    cpu: f64,
    /// Bytes.
    resident: f64,
}

/// Notes what is used whenever the script prints.
#[derive(Debug, Default)]
struct Marks(Mutex<Vec<Mark>>);

impl Output for Marks {
    fn line(&self, _: usize, kind: Line, text: &str) {
        match (kind, used()) {
            (Line::Print, Ok((cpu, resident))) => {
                self.0.lock().push(Mark { text: text.to_owned(), cpu, resident })
            }
            _ => eprintln!("{text}"),
        }
    }
}

/// CPU of this thread, and what the process has in memory.
fn used() -> Outcome<(f64, f64)> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split_whitespace().nth(1).ok_or("an empty statm")?.parse()?;
    Ok((nanos / 1e3, pages * 4096.0))
}

/// Plays a script to its end, and gives what it marked.
fn play(source: &str) -> Outcome<Vec<Mark>> {
    let marks = Arc::new(Marks::default());
    let script = Script { name: "bench".into(), source: source.to_owned() };
    let mut limits = Limits::default();
    // The baseline waits for nothing.
    limits.step = Duration::from_secs(3600);
    let report =
        Game::builder().time(Time::Virtual).limits(limits).output(marks.clone()).run(&script)?;
    if !report.is_success() {
        return Err(format!("the script failed: {report:?}").into());
    }
    let marks = marks.0.lock().clone();
    Ok(marks)
}

/// How many times each cost is measured, and of how many saves at a time. The median counts.
const TURNS: usize = 9;
const ROUNDS: usize = 1_000;

/// The median of what the rounds between the marks took, in microseconds of CPU each.
fn each(marks: &[Mark]) -> f64 {
    let mut turns: Vec<f64> =
        marks.windows(2).map(|pair| (pair[1].cpu - pair[0].cpu) / ROUNDS as f64).collect();
    turns.sort_by(f64::total_cmp);
    turns[turns.len() / 2]
}

/// How the script waits for the end of a save.
const WAITS: [(&str, &str); 2] = [
    ("for its data", "local function wait(signal) signal:Wait() end"),
    (
        "for its end",
        "local function wait(signal)
            local thread, connection = coroutine.running(), nil
            connection = signal:Connect(function()
                connection:Disconnect()
                task.spawn(thread)
            end)
            coroutine.yield()
        end",
    ),
];

/// JSON of a table as the machine hands it to the engine.
#[derive(Clone)]
struct Written(Arc<RawValue>);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(WRITTEN_BY_THE_RULE, &*self.0)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::<RawValue>::deserialize(deserializer)?.into()))
    }
}

/// What the engine and the store take of a save, without a script: JSON that is there already is
/// handed over and saved.
fn engine_alone(json: &str) -> Outcome<f64> {
    let versions: Vec<Written> = (0..16)
        .map(|n| -> Outcome<Written> {
            let json = json.replace("\"Coins\":0", &format!("\"Coins\":{n}"));
            Ok(Written(RawValue::from_string(json)?.into()))
        })
        .collect::<Outcome<_>>()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let server = GameServer::builder(MemoryStore::new(Env::system())).start().await?;
        let store = server.store_builder("Bench").template(versions[0].clone()).build()?;
        let profile = store.start_session("p").await?;
        let mut marks = Vec::new();
        for turn in 0..=TURNS {
            let (cpu, resident) = used()?;
            marks.push(Mark { text: String::new(), cpu, resident });
            for n in 0..if turn < TURNS { ROUNDS } else { 0 } {
                profile.update(|data| *data = versions[n % versions.len()].clone())?;
                profile.save().await?;
            }
        }
        Ok(each(&marks))
    })
}

fn cpu_per_save() -> Outcome {
    for kilobytes in [4, 35] {
        let template = template(kilobytes * 1000);
        let bare = play(&format!(
            "{template}
            print(http:JSONEncode(template))
            for turn = 0, {TURNS} do
                print(size)
                for n = 1, if turn < {TURNS} then {ROUNDS} else 0 do
                    template.Coins = n
                    http:JSONEncode(template)
                end
            end"
        ))?;
        let (encoding, engine) = (each(&bare[1..]), engine_alone(&bare[0].text)?);
        println!("CPU a save of {} bytes, changed each time, on one thread", bare[1].text);
        println!("  encoding alone (HttpService:JSONEncode):       {encoding:>8.1} us");
        println!("  the engine and the store alone, from Rust:     {engine:>8.1} us");
        for (name, module) in MODULES {
            for (what, wait) in WAITS {
                let marks = play(&format!(
                    "{template}
                    {module}
                    {wait}
                    local profile = open('p')
                    local signal = saved(profile)
                    local function save()
                        profile.Data.Coins += 1
                        profile:Save()
                        wait(signal)
                    end
                    for _ = 1, 100 do save() end
                    for turn = 0, {TURNS} do
                        print(turn)
                        for _ = 1, if turn < {TURNS} then {ROUNDS} else 0 do save() end
                    end
                    profile.Data.Coins = 0"
                ))?;
                let whole = each(&marks);
                println!(
                    "  {name:<14} edit, save, wait {what:<12}:   {whole:>8.1} us, {:.1} beyond \
                        both ({:.2} x the encoding)",
                    whole - encoding - engine,
                    whole / encoding
                );
            }
        }
    }
    Ok(())
}

/// A process of its own for each: what an earlier game has freed is not given back.
fn apart(what: &str, names: &[&str]) -> Outcome {
    for name in names {
        let status = Command::new(std::env::current_exe()?).args([what, name]).status()?;
        if !status.success() {
            return Err(format!("{what} {name} failed").into());
        }
    }
    Ok(())
}

const MEMORY_SESSIONS: usize = 5_000;

fn memory_of(name: &str) -> Outcome {
    let template = template(4_100);
    let each = |marks: &[Mark], at: usize| {
        (marks[at].resident - marks[0].resident) / MEMORY_SESSIONS as f64 / 1e3
    };
    let Some((_, module)) = MODULES.into_iter().find(|module| module.0 == name) else {
        let marks = play(&format!(
            "{template}
            local text = http:JSONEncode(template)
            local warm, all = table.create(500), table.create({MEMORY_SESSIONS})
            for n = 1, 500 do warm[n] = http:JSONDecode(text) end
            print(size)
            for n = 1, {MEMORY_SESSIONS} do all[n] = http:JSONDecode(text) end
            print('done')"
        ))?;
        println!(
            "  the tables of Data alone, {} bytes of JSON each: {:>6.1} KB each",
            marks[0].text,
            each(&marks, 1)
        );
        return Ok(());
    };
    let marks = play(&format!(
        "{template}
        {module}
        local warm, all = table.create(500), table.create({MEMORY_SESSIONS})
        for n = 1, 500 do warm[n] = open(`warm{{n}}`) end
        print('begin')
        for n = 1, {MEMORY_SESSIONS} do all[n] = open(`p{{n}}`) end
        print('open')
        for n = 1, {MEMORY_SESSIONS} do all[n].Data.Coins = n end
        -- Every one has been saved and signalled.
        task.wait(310)
        print('saved')"
    ))?;
    println!(
        "  {name:<16} opened: {:>6.1} KB each, after an autosave: {:>6.1} KB each (store in \
            memory included)",
        each(&marks, 1),
        each(&marks, 2)
    );
    Ok(())
}

/// How many sessions play for an hour: `SESSIONS`, or 10,000.
fn hour_sessions() -> Outcome<usize> {
    Ok(std::env::var("SESSIONS").map_or(Ok(10_000), |sessions| sessions.parse())?)
}

fn hour_of(name: &str) -> Outcome {
    let sessions = hour_sessions()?;
    let template = template(4_100);
    let (_, module) =
        MODULES.into_iter().find(|module| module.0 == name).ok_or("no such module")?;
    let marks = play(&format!(
        "{template}
        {module}
        local all, saves = table.create({sessions}), 0
        print('begin')
        for n = 1, {sessions} do
            all[n] = open(`p{{n}}`)
            saved(all[n]):Connect(function() saves += 1 end)
        end
        print('open')
        for turn = 1, 120 do
            for n = turn % 10 + 1, {sessions}, 10 do all[n].Data.Coins += 1 end
            task.wait(30)
        end
        print(saves)"
    ))?;
    let [begin, open, end] = &marks[..] else {
        return Err("the hour was cut short: SIGTERM ends a game as Ctrl-C does".into());
    };
    let seconds = |from: &Mark, to: &Mark| (to.cpu - from.cpu) / 1e6;
    println!(
        "  {name:<16} opened in {:.1} s of CPU; the hour {:.1} s of CPU, {} saves and looks, \
            {:.0} MB in memory at the end",
        seconds(begin, open),
        seconds(open, end),
        end.text,
        end.resident / 1e6
    );
    Ok(())
}

fn main() -> Outcome {
    // Cargo passes flags of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory-of", name] => return memory_of(name),
        ["hour-of", name] => return hour_of(name),
        _ => {}
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    if wanted("cpu") {
        cpu_per_save()?;
    }
    if wanted("memory") {
        println!("\nmemory of {MEMORY_SESSIONS} open sessions");
        apart("memory-of", &["tables", "ProfileStore", "ProfileService"])?;
    }
    if wanted("hour") {
        println!(
            "\n{} sessions of 4.1 KB in one machine for a virtual hour, a tenth \
            of them changed every 30 s",
            hour_sessions()?
        );
        apart("hour-of", &["ProfileStore", "ProfileService"])?;
    }
    Ok(())
}
