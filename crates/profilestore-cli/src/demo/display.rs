//! What people see while it goes on: lines that change in place on a terminal, a line now and then
//! elsewhere.

use std::{
    io::{IsTerminal, Write as _},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::world::World;

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
