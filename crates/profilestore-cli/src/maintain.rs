//! `backup`, `restore` and `check`: keeping a store safe.

use std::io::Write;

use clap::Args;
use profilestore::transfer::{ExportFilter, Progress, verify};

use crate::{
    args::App,
    output::{Failure, Status, count, facts, json_document, out},
    transfer::{held, progress_bar, show, waiting},
};

/// Verify a store: its file, and that every kept version can be read
#[derive(Debug, Args)]
pub(crate) struct Check {}

impl Check {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open_sqlite().await?;
        let bar = progress_bar();
        let mut progress = |progress: Progress| show(&bar, progress, None);
        let report = verify(&store, &ExportFilter::default(), &mut progress).await;
        bar.finish_and_clear();
        let report = report?;
        Ok(Status::Fine)
    }
}
