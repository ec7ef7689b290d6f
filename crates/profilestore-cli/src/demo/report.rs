//! The report of a run: as text that fits the terminal, and for programs.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    Plan,
    audit::Findings,
    figures::{Figures, shown},
    ledger::Check,
    world::World,
};
use crate::output::width;

/// How wide the names of the report are.
const NAMES: usize = 32;

/// How many violations of one check are printed.
const MAX_SHOWN: usize = 20;

/// The report as text.
pub(super) fn text(plan: &Plan, world: &World, findings: &Findings, faults: &Check) -> String {
    let mut rows = Rows { text: String::new(), width: width() };
    let figures = &world.figures;
    rows.add(
        "servers, players, seed",
        format!("{}, {}, {}", plan.servers, plan.players, plan.seed),
    );
    rows.sessions(figures);
    rows.exchanges(figures, findings);
    rows.edits(world, findings);
    rows.kills(plan, figures);
    rows.errors(figures);
    rows.add("audit: time to open a player", findings.opened.shown());
    let mut out = rows.text;
    out.push('\n');
    for check in findings.checks.iter().chain([faults]) {
        show_check(&mut out, check);
    }
    let passed = findings.checks.iter().chain([faults]).all(Check::passed);
    let _ = writeln!(out, "\naudit {}", if passed { "passed" } else { "FAILED" });
    out
}

/// A check of the audit, with its first violations.
fn show_check(out: &mut String, check: &Check) {
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

/// The figures, a line for each.
struct Rows {
    text: String,
    /// Of the terminal. None: it is none.
    width: Option<usize>,
}

impl Rows {
    fn add(&mut self, name: &str, value: String) {
        self.text += &row(name, &value, self.width);
    }

    fn sessions(&mut self, figures: &Figures) {
        self.add(
            "saves acknowledged",
            format!("{}, {}", figures.saves, figures.save_times.shown()),
        );
        self.add(
            "sessions started",
            format!(
                "{} on free profiles, {}",
                figures.start_times.count(),
                figures.start_times.shown()
            ),
        );
        self.add(
            "hand-overs",
            format!("{}, {}", figures.hand_over_times.count(), figures.hand_over_times.shown()),
        );
        self.add(
            "take-overs after a kill",
            format!("{}, {}", figures.take_over_times.count(), figures.take_over_times.shown()),
        );
        self.add("a player's longest wait", shown(figures.unserved_times.percentile(100.0)));
        self.add("sessions ended by order", figures.leaves.to_string());
        for (how, count) in &figures.ends {
            self.add(&format!("sessions {how}"), count.to_string());
        }
    }

    /// What players sent, gave and traded.
    fn exchanges(&mut self, figures: &Figures, findings: &Findings) {
        self.add(
            "messages",
            format!(
                "{} sent, {} sent again after a crash, {} handled before the audit",
                figures.messages_sent,
                figures.resent + findings.sent_again,
                figures.messages_handled
            ),
        );
        self.add(
            "items",
            format!(
                "{} trades on one server, {}; {} between two; {} presents",
                figures.trades,
                figures.trade_times.shown(),
                figures.settlements,
                figures.presents
            ),
        );
    }

    fn edits(&mut self, world: &World, findings: &Findings) {
        let figures = &world.figures;
        let [made, refused, _] = world.ledger.edits.fates();
        self.add(
            "operators' edits",
            format!(
                "{made} made, {} of them online, {}; {refused} refused; {} ordered again",
                figures.edits_online,
                figures.edit_times.shown(),
                figures.edits_repeated
            ),
        );
        if let Some((reached, online)) = findings.all_edited {
            self.add(
                "one edit of all players",
                format!(
                    "{reached} reached, {online} of them online; broken off by a kill {}, resumed \
                     {}",
                    figures.all_broken_off, figures.all_resumed
                ),
            );
        }
    }

    fn kills(&mut self, plan: &Plan, figures: &Figures) {
        self.add("servers killed", figures.kills.to_string());
        if plan.via_server > 0 {
            let hosts = format!("{}, killed {}", plan.via_server, figures.host_kills);
            self.add("played through server processes", hosts);
        }
        if figures.restarts > 0 {
            self.add("servers restarted", figures.restarts.to_string());
        }
    }

    fn errors(&mut self, figures: &Figures) {
        if !figures.failures.is_empty() {
            self.add("refused or unknown", figures.failures.values().sum::<u64>().to_string());
        }
        for (what, count) in &figures.failures {
            self.add(&format!("  {what}"), count.to_string());
        }
        if figures.troubles > 0 {
            let last = figures.last_trouble.as_deref().unwrap_or_default();
            self.add("store errors", format!("{}, the last one: {last}", figures.troubles));
        }
    }
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

/// The report for programs.
pub(super) fn json(
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
