//! Listings, a page at a time.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::error::{Code, DataStoreError};

/// Fetches at most so many items behind the last one (None: from the beginning), and says whether
/// more may follow.
pub(super) type Fetch<T> = dyn Fn(Option<T>, usize) -> BoxFuture<'static, Result<(Vec<T>, bool), DataStoreError>>
    + Send
    + Sync;

/// A listing of which one page is at hand. Specification: `Pages`.
pub struct Pages<T> {
    page: Vec<T>,
    /// What was fetched beyond the page.
    ahead: Vec<T>,
    /// Nothing follows what was fetched.
    complete: bool,
    page_size: usize,
    fetch: Arc<Fetch<T>>,
}

impl<T: fmt::Debug> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("page", &self.page)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

impl<T: Clone> Pages<T> {
    pub(super) async fn first(
        page_size: usize,
        fetch: Arc<Fetch<T>>,
    ) -> Result<Self, DataStoreError> {
        let mut pages =
            Self { page: Vec::new(), ahead: Vec::new(), complete: false, page_size, fetch };
        pages.turn().await?;
        Ok(pages)
    }

    /// The page at hand. Specification: `GetCurrentPage`.
    pub fn current_page(&self) -> &[T] {
        &self.page
    }

    /// True when no page follows. Specification: `IsFinished`.
    pub fn is_finished(&self) -> bool {
        self.complete && self.ahead.is_empty()
    }

    /// Goes on to the next page. Fails when there is none (`No pages to advance to`), and when the
    /// store fails; the page at hand stays then. Specification: `AdvanceToNextPageAsync`.
    pub async fn advance(&mut self) -> Result<(), DataStoreError> {
        if self.is_finished() {
            return Err(DataStoreError::new(Code::RequestRejected, "No pages to advance to"));
        }
        self.turn().await
    }

    /// Fetches a page and one item more, which tells whether another page follows.
    async fn turn(&mut self) -> Result<(), DataStoreError> {
        let mut items = self.ahead.clone();
        let mut complete = self.complete;
        while !complete && items.len() <= self.page_size {
            let after = items.last().or(self.page.last()).cloned();
            let (more, follows) = (self.fetch)(after, self.page_size + 1 - items.len()).await?;
            complete = !follows;
            items.extend(more);
        }
        self.ahead = items.split_off(items.len().min(self.page_size));
        (self.page, self.complete) = (items, complete);
        Ok(())
    }
}
