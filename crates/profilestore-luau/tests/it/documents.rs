//! The complete Luau blocks of the specification's documents, run as games. The documents are not
//! part of the project:
//!
//! ```console
//! $ PROFILESTORE_SPECIFICATION=FOLDER cargo nextest run -p profilestore-luau \
//!     --run-ignored only documents
//! ```
//!
//! `patterns` has what the blocks show in words of our own, so that the gate covers it.

use std::{fs, path::PathBuf};

use crate::run;

/// A block of code in a document.
struct Block {
    /// Document and line.
    name: String,
    /// It is about ProfileService, not ProfileStore.
    old: bool,
    code: String,
}

fn blocks() -> Vec<Block> {
    let folder = PathBuf::from(
        std::env::var_os("PROFILESTORE_SPECIFICATION").expect("PROFILESTORE_SPECIFICATION is set"),
    );
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|file| file.expect("a file").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut blocks = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a text");
        let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let old = text.matches("ProfileService").count() > text.matches("ProfileStore.").count();
        let mut code: Option<(usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            match &mut code {
                None if line.starts_with("```") && line.contains("lua") => {
                    code = Some((number + 1, String::new()))
                }
                Some((begin, block)) if line.starts_with("```") => {
                    blocks.push(Block {
                        name: format!("{stem}:{begin}"),
                        old,
                        code: std::mem::take(block),
                    });
                    code = None;
                }
                Some((_, block)) => *block += &format!("{line}\n"),
                None => {}
            }
        }
    }
    blocks
}

/// A signature rather than code: nothing in it is a statement of more than a line.
fn is_signature(code: &str) -> bool {
    let statement = |line: &str| {
        let line = line.split("--").next().unwrap_or_default();
        ["local ", "function(", "for ", "if "].iter().any(|word| line.contains(word))
    };
    !code.lines().any(statement)
}

/// What a block finds: the locals that the text around it speaks of.
const NEW: &str = "
    ProfileStore = require('ProfileStore')
    PlayerStore = ProfileStore.New('PlayerData', { Coins = 500 })
    Profile = PlayerStore:StartSessionAsync('Player_1')
    Profiles = { [player] = Profile }
    after = function()
        PlayerStore:MessageAsync('Player_1', { hello = 1 })
        Profile:Save()
        task.wait(1)
        assert(Profile:IsActive())
        Profile:EndSession()
    end
";
const OLD: &str = "
    ProfileService = require('ProfileService')
    store_name, template, ProfileTemplate = 'PlayerData', { Coins = 0 }, { Coins = 0 }
    GameProfileStore = ProfileService.GetProfileStore(store_name, template)
    ProfileStore = GameProfileStore
    ProfileStore:GlobalUpdateProfileAsync('Player_1', function(updates)
        updates:AddActiveUpdate({ Type = 'AdminGift', Item = 'Coins', Amount = 7 })
    end)
    profile = ProfileStore:LoadProfileAsync('Player_1')
    after = function()
        ProfileStore:GlobalUpdateProfileAsync('Player_1', function(updates)
            updates:AddActiveUpdate({ Type = 'AdminGift', Item = 'Coins', Amount = 1 })
        end)
        task.wait(1)
        profile:Release()
    end
    function DeepCopyTable(t) return table.clone(t) end
";
const BOTH: &str = "
    Players = game:GetService('Players')
    AnalyticsService = game:GetService('AnalyticsService')
    place_id = game.PlaceId
    player = Players:GetPlayers()[1] or Players.PlayerAdded:Wait()
    local function history(load, save, done)
        for n = 1, 3 do
            local profile = load('Player_2312310')
            profile.Data.Coins = n
            save(profile)
            task.wait(1)
            done(profile)
            task.wait(3700)
        end
    end
";

#[test]
#[ignore = "needs the specification's documents: PROFILESTORE_SPECIFICATION is their folder"]
fn the_complete_blocks_of_the_documents_run() {
    let all = blocks();
    let mut ran = 0;
    for Block { name, old, code } in all.iter().filter(|block| !is_signature(&block.code)) {
        // Locals that the block leaves for its reader to set.
        let code = code
            .replace("local profile -- A profile object you loaded", "")
            .replace("local profile, player, place_id", "");
        let (own, history) = if *old {
            (
                OLD,
                "history(function(key) return ProfileStore:LoadProfileAsync(key) end, function(p) \
                    p:Save() end, function(p) p:Release() end)",
            )
        } else {
            (
                NEW,
                "history(function(key) return PlayerStore:StartSessionAsync(key) end, function(p) \
                    p:Save() end, function(p) p:EndSession() end)",
            )
        };
        let history = if code.contains("Query(") { history } else { "" };
        let script = format!("{BOTH} {own} {history}").replace('\n', " ")
            + &code
            + "\nif after then after() end\n";
        let ran_block =
            run(&script, |game| game.servers(1).players("1:join@0s".parse().expect("a plan")));
        assert!(
            ran_block.report.is_success(),
            "{name}: {:?}\n{:?}\n{code}",
            ran_block.report,
            ran_block.recorder
        );
        ran += 1;
    }
    assert!(ran >= 30, "{ran} blocks of {}", all.len());
}
