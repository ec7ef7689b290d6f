//! What people see: lines that change in place on a terminal, a line now and then elsewhere, and
//! the report at the end.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use super::{Plan, audit::Findings, figures::shown, ledger::Check, world::World};
use crate::output::width;

/// How wide the names of the report are.
const NAMES: usize = 32;

/// How many violations of one check are printed.
const MAX_SHOWN: usize = 20;

/// How often a line is written where there is no terminal.
const PERIOD: Duration = Duration::from_secs(3);

/// The view of a run. Writes to standard error, so that the report has standard output to itself.
pub(crate) enum Display {
    Live { bar: ProgressBar, lines: Vec<ProgressBar>, last: Rate },
    Plain { next: Instant, last: Rate },
}

/// Saves and their moment at the last look, for a rate.
#[derive(Debug)]
pub(crate) struct Rate {
    at: Instant,
    saves: u64,
    rate: f64,
}

impl Rate {
    fn new() -> Self {
        Self { at: Instant::now(), saves: 0, rate: 0.0 }
    }

    fn look(&mut self, saves: u64) -> f64 {
        let passed = self.at.elapsed();
        if passed >= Duration::from_millis(900) {
            self.rate = saves.saturating_sub(self.saves) as f64 / passed.as_secs_f64();
            (self.at, self.saves) = (Instant::now(), saves);
        }
        self.rate
    }
}

impl Display {
    pub(crate) fn new(seconds: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain { next: Instant::now() + PERIOD, last: Rate::new() };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = |template| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let bar = all.add(ProgressBar::new(seconds * 10).with_style(style("{bar:40} {msg}")));
        let lines = (0..6)
            .map(|_| all.add(ProgressBar::new_spinner().with_style(style("{wide_msg}"))))
            .collect();
        Self::Live { bar, lines, last: Rate::new() }
    }

    /// Shows how things stand after `passed`.
    pub(crate) fn show(&mut self, world: &World, passed: Duration) {
        match self {
            Self::Live { bar, lines, last } => {
                bar.set_position(u64::try_from(passed.as_millis() / 100).unwrap_or(u64::MAX));
                bar.set_message(format!("{:.0} s", passed.as_secs_f64()));
                let rate = last.look(world.figures.saves);
                for (line, text) in lines.iter().zip(texts(world, rate)) {
                    line.set_message(text);
                }
            }
            Self::Plain { next, last } => {
                let rate = last.look(world.figures.saves);
                if Instant::now() >= *next {
                    *next += PERIOD;
                    say(&format!(
                        "{:>4.0} s  {}",
                        passed.as_secs_f64(),
                        texts(world, rate).join("; ")
                    ));
                }
            }
        }
    }

    /// Says what happens next.
    pub(crate) fn phase(&mut self, what: &str) {
        match self {
            Self::Live { bar, .. } => bar.set_message(what.to_owned()),
            Self::Plain { .. } => say(what),
        }
    }

    /// Leaves the last state standing.
    pub(crate) fn end(&self) {
        if let Self::Live { bar, lines, .. } = self {
            bar.finish();
            lines.iter().for_each(ProgressBar::finish);
        }
    }
}

/// A line on standard error; a closed one is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn texts(world: &World, rate: f64) -> [String; 6] {
    let figures = &world.figures;
    let sessions = world
        .sessions()
        .into_iter()
        .map(|count| count.map_or("down".to_owned(), |count| count.to_string()));
    let sessions = sessions.collect::<Vec<_>>().join(" ");
    let [made, refused, open] = world.ledger.edits.fates();
    let all = match world.ledger.edits.of_all() {
        None => "yet to come",
        Some((_, false)) => "under way",
        Some((_, true)) => "complete",
    };
    [
        format!("sessions {sessions}"),
        format!("saves {} ({rate:.0}/s), {}", figures.saves, figures.save_times.shown()),
        format!(
            "hand-overs {}, {}",
            figures.hand_over_times.count(),
            figures.hand_over_times.shown()
        ),
        format!(
            "kills {}, take-overs {}, refused starts and saves {}",
            figures.kills,
            figures.take_over_times.count(),
            figures.errors(),
        ),
        format!("messages {} sent, {} handled", figures.messages_sent, figures.messages_handled),
        format!("edits {made} made, {refused} refused, {open} under way; of all players: {all}"),
    ]
}

/// A line of the report. A value that does not fit goes on below itself: behind a comma, or behind
/// any word where there is none.
fn row(name: &str, value: &str, width: Option<usize>) -> String {
    let mut out = format!("{name:<NAMES$}");
    let mut at = out.chars().count();
    let most = width.unwrap_or(usize::MAX);
    let mut add = |text: &str| {
        let wide = text.chars().count();
        if at > NAMES && at + wide > most && text.starts_with(' ') {
            out += &format!("\n{:NAMES$}", "");
            at = NAMES;
        }
        out += text;
        at += wide;
    };
    let mut parts: Vec<String> = Vec::new();
    for part in format!(" {value}").split_inclusive([',', ';']) {
        match parts.last_mut() {
            // A comma within a number.
            Some(last) if !part.starts_with(' ') => last.push_str(part),
            _ => parts.push(part.to_owned()),
        }
    }
    for part in &parts {
        if NAMES + part.chars().count() <= most {
            add(part);
        } else {
            part.split(' ').skip(1).for_each(|word| add(&format!(" {word}")));
        }
    }
    out + "\n"
}

/// The report as text.
pub(crate) fn text(plan: &Plan, world: &World, findings: &Findings, faults: &Check) -> String {
    let figures = &world.figures;
    let mut out = String::new();
    let width = width();
    let mut row = |name: &str, value: String| out += &row(name, &value, width);
    row("servers, players, seed", format!("{}, {}, {}", plan.servers, plan.players, plan.seed));
    row("saves acknowledged", format!("{}, {}", figures.saves, figures.save_times.shown()));
    row(
        "sessions started",
        format!(
            "{} on free profiles, {}",
            figures.start_times.count(),
            figures.start_times.shown()
        ),
    );
    row(
        "hand-overs",
        format!("{}, {}", figures.hand_over_times.count(), figures.hand_over_times.shown()),
    );
    row(
        "take-overs after a kill",
        format!("{}, {}", figures.take_over_times.count(), figures.take_over_times.shown()),
    );
    row("a player's longest wait", shown(figures.unserved_times.percentile(100.0)));
    row("sessions ended by order", figures.leaves.to_string());
    for (how, count) in &figures.ends {
        row(&format!("sessions {how}"), count.to_string());
    }
    row(
        "messages",
        format!(
            "{} sent, {} sent again after a crash, {} handled before the audit",
            figures.messages_sent,
            figures.resent + findings.sent_again,
            figures.messages_handled
        ),
    );
    row(
        "items",
        format!(
            "{} trades on one server, {}; {} between two; {} presents",
            figures.trades,
            figures.trade_times.shown(),
            figures.settlements,
            figures.presents
        ),
    );
    let [made, refused, _] = world.ledger.edits.fates();
    row(
        "operators' edits",
        format!(
            "{made} made, {} of them online, {}; {refused} refused; {} ordered again",
            figures.edits_online,
            figures.edit_times.shown(),
            figures.edits_repeated
        ),
    );
    if let Some((reached, online)) = findings.all_edited {
        row(
            "one edit of all players",
            format!(
                "{reached} reached, {online} of them online; broken off by a kill {}, resumed {}",
                figures.all_broken_off, figures.all_resumed
            ),
        );
    }
    row("servers killed", figures.kills.to_string());
    if plan.via_server > 0 {
        let hosts = format!("{}, killed {}", plan.via_server, figures.host_kills);
        row("played through server processes", hosts);
    }
    if figures.restarts > 0 {
        row("servers restarted", figures.restarts.to_string());
    }
    if !figures.failures.is_empty() {
        row("refused or unknown", figures.failures.values().sum::<u64>().to_string());
    }
    for (what, count) in &figures.failures {
        row(&format!("  {what}"), count.to_string());
    }
    if figures.troubles > 0 {
        let last = figures.last_trouble.as_deref().unwrap_or_default();
        row("store errors", format!("{}, the last one: {last}", figures.troubles));
    }
    row("audit: time to open a player", findings.opened.shown());
    out.push('\n');
    for check in findings.checks.iter().chain([faults]) {
        let _ = writeln!(
            out,
            "{:<NAMES$} {}{}",
            check.name,
            check.found,
            if check.passed() { "" } else { "  VIOLATED" }
        );
        for violation in check.violations.iter().take(MAX_SHOWN) {
            let _ = writeln!(out, "    {violation}");
        }
        if check.violations.len() > MAX_SHOWN {
            let _ = writeln!(out, "    and {} more", check.violations.len() - MAX_SHOWN);
        }
    }
    let passed = findings.checks.iter().chain([faults]).all(Check::passed);
    let _ = writeln!(out, "\naudit {}", if passed { "passed" } else { "FAILED" });
    out
}

/// The report for programs.
pub(crate) fn json(
    plan: &Plan,
    world: &World,
    findings: &Findings,
    faults: &Check,
) -> serde_json::Value {
    let checks = || findings.checks.iter().chain([faults]);
    json!({
        "servers": plan.servers,
        "players": plan.players,
        "seconds": plan.seconds,
        "kill": plan.kill,
        "seed": plan.seed,
        "lease_seconds": plan.lease_seconds,
        "via_server": plan.via_server,
        "figures": world.figures.json(),
        "edits": {
            "made_refused_unknown": world.ledger.edits.fates(),
            "all_players": findings.all_edited.map(|(reached, online)| json!({ "reached": reached, "online": online })),
        },
        "audit": {
            "passed": checks().all(Check::passed),
            "opened": findings.opened.json(),
            "sent_again": findings.sent_again,
            "checks": checks().map(|check| json!({
                "name": check.name,
                "found": check.found,
                "passed": check.passed(),
                "violations": check.violations,
            })).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_line_of_the_report_fits_the_terminal() {
        let value =
            "12 trades on one server, p50 1.1 ms, p99 8.0 ms; 1,003 between two; 4 presents";
        let narrow = row("items", value, Some(60));
        assert_eq!(
            narrow.lines().map(str::trim_start).collect::<Vec<_>>(),
            [
                &*format!("{:<32} 12 trades on one server,", "items"),
                "p50 1.1 ms, p99 8.0 ms;",
                "1,003 between two;",
                "4 presents"
            ]
        );
        assert!(narrow.lines().skip(1).all(|line| line.starts_with(&" ".repeat(33))));
        assert_eq!(row("items", value, None), format!("{:<32} {value}\n", "items"));
        assert_eq!(row("saves", "7", Some(20)), format!("{:<32} 7\n", "saves"));
        let sentence = row("store errors", "2, the last one: the store did not answer", Some(60));
        assert!(sentence.lines().count() == 2 && sentence.lines().all(|line| line.len() <= 60));
        assert!(sentence.ends_with(" not answer\n"), "{sentence}");
    }
}
