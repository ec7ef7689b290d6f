//! `completions` and `man`: what shells and readers of manuals get, made from the command line
//! itself.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args as ClapArgs;
use clap_complete::Shell;

use crate::{
    args::Args,
    output::{Failure, Status, say},
};

/// Print what completes this program's command line in a shell
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  profilestore completions bash > /etc/bash_completion.d/profilestore
  profilestore completions fish > ~/.config/fish/completions/profilestore.fish")]
pub(crate) struct Completions {
    /// For this shell
    shell: Shell,
}

/// Write the manual pages of all commands
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  profilestore man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Into this folder, which is made if it is not there
    folder: PathBuf,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Status, Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Args::whole(), "profilestore", &mut text);
        io::Write::write_all(&mut io::stdout().lock(), &text)?;
        Ok(Status::Fine)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<Status, Failure> {
        let written = write(&self.folder).map_err(|error| {
            let folder = self.folder.display();
            Failure::Work(format!("the pages cannot be written: {error}: folder=`{folder}`"))
        });
        written?;
        say(format_args!("the manual pages are in {}", self.folder.display()))?;
        Ok(Status::Fine)
    }
}

fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Args::whole(), folder)
}
