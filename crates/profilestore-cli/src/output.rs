//! What people and programs see: text in columns, JSON, errors in one line, exit codes.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    process::ExitCode,
};

use indicatif::{ProgressState, ProgressStyle};
use profilestore::{
    data_store::StoreError,
    key::{is_hidden, visible},
    transfer::TransferError,
};
use serde::Serialize;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    prelude::*,
};

pub(crate) use self::table::{Table, width};
use crate::place::Place;

mod table;

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Fine,
    /// It found something wrong, and said so.
    Problems,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Fine => Self::SUCCESS,
            Status::Problems => Self::from(1),
        }
    }
}

/// Why a command did not do its work. Each is one line for stderr: what, where, what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of the output closed it. Nothing to report.
    Closed,
    Work(String),
    Usage(String),
    Store(String),
    NotFound(String),
}

impl Failure {
    /// Says which store it is about, if that is not said yet.
    pub(crate) fn of(self, place: &Place) -> Self {
        match self {
            Self::Store(message) if !message.contains("store=`") => {
                Self::Store(format!("{message}: store=`{place}`"))
            }
            other => other,
        }
    }

    /// The command needs a part that this program was built without. Says how to build one that has
    /// it too.
    #[cfg(not(feature = "full"))]
    #[allow(dead_code, reason = "no command asks where every part is named without `full`")]
    pub(crate) fn left_out(part: &str, feature: &str) -> Self {
        let built = [
            ("postgres", cfg!(feature = "postgres")),
            ("nats", cfg!(feature = "nats")),
            ("luau", cfg!(feature = "luau")),
            ("serve", cfg!(feature = "serve")),
            ("conformance", cfg!(feature = "conformance")),
        ];
        let features: Vec<_> = built
            .into_iter()
            .filter(|(name, has)| *has || *name == feature)
            .map(|(name, _)| name)
            .collect();
        let features = features.join(",");
        Self::Usage(format!(
            "this program was built without {part}; build it with `cargo build --release -p profilestore-cli --features {features}`, \
             or run `cargo run --release --features {features} -- ...`; the feature `full` brings every part"
        ))
    }

    pub(crate) fn report(self) -> ExitCode {
        let (code, message) = match self {
            Self::Closed => return ExitCode::SUCCESS,
            Self::Work(message) => (1, message),
            Self::Usage(message) => (2, message),
            Self::Store(message) => (3, message),
            Self::NotFound(message) => (4, message),
        };
        // A closed stderr is no reason to panic.
        let _ = writeln!(io::stderr(), "error: {}", one_line(&message));
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => Ok(()),
            Self::Work(message)
            | Self::Usage(message)
            | Self::Store(message)
            | Self::NotFound(message) => f.write_str(message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Work(format!("the output cannot be written: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. }
            | StoreError::TakenAway { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Replaced { .. } => Self::Store(chain(&error)),
            _ => Self::Work(chain(&error)),
        }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(error) => error.into(),
            TransferError::Write(error) => error.into(),
            error => Self::Work(chain(&error)),
        }
    }
}

/// An error with what caused it, in one line. A cause that the error quotes itself comes once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let own = cause.to_string();
        if !text.ends_with(&own) {
            let _ = write!(text, ": {own}");
        }
        source = cause.source();
    }
    text
}

/// Asks a question to which only `y` and `yes` mean yes. Fails when standard input is no terminal.
pub(crate) fn ask(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "{question} Say --yes, since there is no terminal to ask at"
        )));
    }
    write!(io::stderr(), "{} [y/N] ", one_line(question))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Standard output. Ends the command quietly when its reader closes it.
pub(crate) type Out = BufWriter<Stdout>;

pub(crate) fn out() -> Out {
    BufWriter::new(io::stdout())
}

/// A line on standard output. Ends the command quietly when nobody reads it any more.
pub(crate) fn say(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{}", one_line(&line.to_string()))?)
}

/// A line of text among others. Whatever names, reasons and values are in it, it is one line, and
/// nothing in it moves the cursor.
pub(crate) fn text(out: &mut Out, line: fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(writeln!(out, "{}", one_line(&line.to_string()))?)
}

/// A line on standard error. One that nobody reads is no reason to end.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", one_line(&line.to_string()));
}

/// One JSON document, for people to read too when they see it.
pub(crate) fn json_document(content: &impl Serialize) -> Result<(), Failure> {
    let json = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(content)?,
        false => serde_json::to_string(content)?,
    };
    let mut out = out();
    writeln!(out, "{}", visible_json(&json))?;
    Ok(out.flush()?)
}

/// One JSON object a line.
pub(crate) fn json_line(out: &mut Out, content: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(content)?;
    Ok(writeln!(out, "{}", visible_json(&json))?)
}

/// A word of a command that is printed to be typed: a shell reads it as it is, whatever a player
/// has put into it.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.:%@+=,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

/// A text of at most so many characters. One that is cut ends in `…`.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(chars.saturating_sub(1)).collect();
            kept + "…"
        }
    }
}

/// Names and values, one a line.
pub(crate) fn facts(out: &mut Out, facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        writeln!(out, "{name:width$}  {}", one_line(value))?;
    }
    Ok(())
}

/// A text as it can be shown in a line of its own: what would break the line, move the cursor or
/// turn the line around is shown as an escape. So a reason in the audit log cannot look like an
/// entry.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    visible(text)
}

/// JSON of the same content in which every character is seen. Hidden ones can only be in its texts,
/// where an escape means the same; line ends and tabs outside of texts stay.
pub(crate) fn visible_json(json: &str) -> Cow<'_, str> {
    let is_shown = |c: char| matches!(c, '\n' | '\t') || !is_hidden(c);
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_shown(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(shown)
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let scaled = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KB", scaled(1 << 10)),
        1_048_576..1_073_741_824 => format!("{:.1} MB", scaled(1 << 20)),
        _ => format!("{:.1} GB", scaled(1 << 30)),
    }
}

/// A number with its noun, with separators: `1,959 versions`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number with separators: `1,959`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How many a second, for a progress bar. A fraction of one is noise.
fn per_second(rate: f64) -> String {
    format!("{}/s", grouped(rate as u64))
}

/// A progress bar's style with `{rate}` in its template.
pub(crate) fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&per_second(state.per_sec()));
        })
}

/// Where the library logs failed calls of the store, and what comes of them.
const FAILED_CALLS: [&str; 2] = ["profilestore::link::commit", "profilestore::link::health"];

/// Log lines go to stderr, at the level that PROFILESTORE_LOG names, such as `info` or
/// `warn,profilestore=debug`; warnings by default. `of_game`: without those of failed calls, of
/// which a game's modules warn.
pub(crate) fn start_log(of_game: bool) {
    let named = std::env::var("PROFILESTORE_LOG").ok().and_then(|text| text.parse().ok());
    let filter = named.unwrap_or_else(|| {
        let warnings = Targets::new().with_default(LevelFilter::WARN);
        if of_game {
            warnings.with_targets(FAILED_CALLS.map(|target| (target, LevelFilter::ERROR)))
        } else {
            warnings
        }
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(filter).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_cannot_look_like_another_line_of_the_table() {
        assert_eq!(one_line("ticket 4711, \"ä\""), "ticket 4711, \"ä\"");
        assert_eq!(
            one_line("a\n2026-11-26T00:00:00.000Z  remove"),
            "a%0A2026-11-26T00:00:00.000Z  remove"
        );
        assert_eq!(one_line("\u{1b}[31mx\u{85}"), "%1B[31mx%85");
        assert_eq!(one_line("a\u{202e}b\u{200b}"), "a%u202Eb%u200B");
    }

    #[test]
    fn json_shows_every_character_and_means_the_same() {
        let text = "{\n\t\"a\": \"x\u{202e}y\u{7f}\u{e0041}ä\"\n}";
        let shown = visible_json(text);
        assert_eq!(shown, "{\n\t\"a\": \"x\\u202ey\\u007f\\udb40\\udc41ä\"\n}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&shown), read(text));
    }

    /// It said `3,170.4747/s`.
    #[test]
    fn a_rate_has_no_fraction() {
        let shown = [3170.4747, 0.9, 0.0, f64::NAN].map(per_second);
        assert_eq!(shown, ["3,170/s", "0/s", "0/s", "0/s"]);
    }

    #[test]
    fn numbers_are_made_readable() {
        assert_eq!(count(1, "key", "keys"), "1 key");
        assert_eq!(count(1_234_567, "key", "keys"), "1,234,567 keys");
        assert_eq!((grouped(999), grouped(1000)), ("999".into(), "1,000".into()));
        assert_eq!(
            (size(1023), size(1536), size(5 << 20)),
            ("1023 B".into(), "1.5 KB".into(), "5.0 MB".into())
        );
    }
}
