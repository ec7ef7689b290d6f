//! Where scripts' output goes.

use std::{
    fmt,
    io::{self, Write as _},
};

use parking_lot::Mutex;

/// What kind of line a script made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Line {
    /// `print`.
    Print,
    /// `warn`.
    Warn,
    /// An error that ended a thread, with its traceback.
    Error,
}

/// Takes the lines that scripts print.
pub trait Output: Send + Sync + 'static {
    /// A line, or several joined by newlines. `server` counts from 1.
    fn line(&self, server: usize, kind: Line, text: &str);
}

/// Standard output for what is printed, standard error for warnings and errors; with several
/// servers each line names its own.
#[derive(Debug)]
pub struct Console {
    named: bool,
}

impl Console {
    /// `named`: lines begin with the server's number.
    pub fn new(named: bool) -> Self {
        Self { named }
    }
}

impl Output for Console {
    fn line(&self, server: usize, kind: Line, text: &str) {
        let name = if self.named { format!("[server {server}] ") } else { String::new() };
        // Nobody reads any more: a script is not stopped by that.
        let _ = match kind {
            Line::Print => writeln!(io::stdout().lock(), "{name}{text}"),
            Line::Warn => writeln!(io::stderr().lock(), "{name}warning: {text}"),
            Line::Error => writeln!(io::stderr().lock(), "{name}error: {text}"),
        };
    }
}

/// Keeps all lines, for tests of scripts.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<(usize, Line, String)>>);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().iter()).finish()
    }
}

impl Recorder {
    /// All lines until now: server, kind, text.
    pub fn lines(&self) -> Vec<(usize, Line, String)> {
        self.0.lock().clone()
    }

    /// The texts of one kind, in order.
    pub fn texts(&self, kind: Line) -> Vec<String> {
        self.0.lock().iter().filter(|line| line.1 == kind).map(|line| line.2.clone()).collect()
    }
}

impl Output for Recorder {
    fn line(&self, server: usize, kind: Line, text: &str) {
        self.0.lock().push((server, kind, text.to_owned()));
    }
}
