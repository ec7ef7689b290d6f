//! No process that the kit starts outlives it, not even when the kit is killed. A shell reads what
//! is running from a pipe. When the pipe ends, the kit is gone, and the shell kills what is left.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

/// Reads `+ ID` and `- ID`. What ends the kit from its terminal does not end this shell.
const SHELL: &str = "
trap '' HUP INT TERM
left=' '
while read -r sign id; do
  case $sign in
    +) left=\"$left$id \" ;;
    -) left=\"${left%% $id *} ${left#* $id }\" ;;
  esac
done
[ \"$left\" = ' ' ] || kill -KILL $left
";

static WATCHER: LazyLock<Result<Mutex<Child>, String>> = LazyLock::new(|| {
    let mut shell = Command::new("sh");
    shell.args(["-c", SHELL]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let shell = shell.spawn().map_err(|error| format!("the kit needs the shell `sh`: {error}"))?;
    Ok(Mutex::new(shell))
});

fn tell(sign: char, id: u32) -> Result<(), String> {
    let mut shell = WATCHER.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().ok_or("the kit's shell has no input")?;
    writeln!(pipe, "{sign} {id}").map_err(|error| format!("the kit's shell is gone: {error}"))
}

/// A process that is killed when the kit is gone. Dropped when the process has ended.
#[derive(Debug)]
pub(crate) struct Watched(u32);

impl Watched {
    pub(crate) fn new(id: Option<u32>) -> Result<Self, String> {
        let id = id.ok_or("a process ended at once")?;
        tell('+', id)?;
        Ok(Self(id))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Without the shell nothing is watched.
        let _ = tell('-', self.0);
    }
}
