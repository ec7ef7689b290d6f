//! Temporary files that hold what an import has read, and give it back key by key.
//!
//! The lines of an import come in any order, and a key is stored only when all of it was read. So
//! that memory does not grow with the input, values go to one file in the order in which they come,
//! and a small row about each goes to another, in sorted *runs*. A merge of the runs then gives all
//! rows of a key together. Input that is in order, as an export is, makes a single run. The files
//! have no names, so nothing is left of them when the process ends, however it ends.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{super::TransferError, live::Live};
use crate::{ProfileKey, data_store::Imported};

/// How many bytes of rows are sorted in memory, about.
const RUN_BYTES: usize = 8 << 20;

/// How much of a run is read at once.
const READ_BYTES: usize = 32 << 10;

/// A piece of the file of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) bytes: usize,
}

/// What is known of a version besides its value, or of a line of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) key: ProfileKey,
    pub(super) n: u64,
    /// The line that it came in.
    pub(super) line: u64,
    pub(super) written_ms: i64,
    pub(super) created_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    pub(super) removed: bool,
    pub(super) user_ids: Vec<i64>,
    pub(super) load_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) foreign: Option<String>,
    /// A digest of what the document says about its session, to tell since when that one has been
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<[u8; 16]>,
    pub(super) value: Place,
    /// What is live if this is the key's last version.
    pub(super) live: Place,
    /// It is no version, and brings messages of the one with this number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_messages: bool,
}

impl Row {
    pub(super) fn imported(&self) -> Imported {
        Imported {
            written_ms: self.written_ms,
            created_ms: self.created_ms,
            label: self.label.clone(),
        }
    }

    /// How many bytes its value takes.
    pub(super) fn bytes(&self) -> usize {
        self.value.bytes
    }

    /// How many bytes of a temporary file say what is live.
    pub(super) fn live_bytes(&self) -> usize {
        self.live.bytes
    }

    fn order(&self) -> (&ProfileKey, u64, u64) {
        (&self.key, self.n, self.line)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        self.key == next.key && self.n < next.n
    }
}

/// What an import has read so far.
pub(super) struct Spool {
    folder: PathBuf,
    values: BufWriter<File>,
    values_end: u64,
    rows: BufWriter<File>,
    rows_end: u64,
    runs: Vec<Run>,
    /// The last row of the last run.
    last: Option<Row>,
    /// Rows that are not yet in a run, and about how much memory they take.
    batch: Vec<Row>,
    batch_bytes: usize,
    /// How many bytes of them make a run.
    run_bytes: usize,
    /// The newest row, and what is live if it is its key's last version.
    newest: Option<(Row, Vec<u8>)>,
    /// How many versions there are.
    pub(super) versions: u64,
}

/// A sorted piece of the file of rows.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: u64,
    end: u64,
}

impl Spool {
    pub(super) fn new(folder: &Path) -> Result<Self, TransferError> {
        Self::with_runs_of(RUN_BYTES, folder)
    }

    fn with_runs_of(run_bytes: usize, folder: &Path) -> Result<Self, TransferError> {
        let file = || tempfile::tempfile_in(folder).map_err(|source| cannot(folder, source));
        Ok(Self {
            values: BufWriter::with_capacity(1 << 16, file()?),
            values_end: 0,
            rows: BufWriter::with_capacity(1 << 16, file()?),
            rows_end: 0,
            runs: Vec::new(),
            last: None,
            batch: Vec::new(),
            batch_bytes: 0,
            run_bytes,
            newest: None,
            versions: 0,
            folder: folder.to_owned(),
        })
    }

    /// Takes a version with its value and with what is live if it is its key's last one. That is
    /// kept only if no later version of the key follows at once.
    pub(super) fn push(
        &mut self,
        mut row: Row,
        value: Option<&[u8]>,
        live: Vec<u8>,
    ) -> Result<(), TransferError> {
        row.value = match value {
            Some(value) => self.keep(value)?,
            None => Place::default(),
        };
        self.versions += u64::from(!row.is_messages);
        if let Some((mut before, live)) = self.newest.take() {
            if !before.is_followed_by(&row) {
                before.live = self.keep(&live)?;
            }
            self.add(before)?;
        }
        self.newest = Some((row, live));
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Place, TransferError> {
        self.values.write_all(bytes).map_err(|source| cannot(&self.folder, source))?;
        let place = Place { at: self.values_end, bytes: bytes.len() };
        self.values_end += bytes.len() as u64;
        Ok(place)
    }

    fn add(&mut self, row: Row) -> Result<(), TransferError> {
        self.batch_bytes += size_of::<Row>()
            + row.user_ids.len() * size_of::<i64>()
            + row.label.as_ref().map_or(0, String::len)
            + row.foreign.as_ref().map_or(0, String::len);
        self.batch.push(row);
        if self.batch_bytes >= self.run_bytes { self.end_run() } else { Ok(()) }
    }

    /// Writes the rows that wait, as a run of their own or behind the last one.
    fn end_run(&mut self) -> Result<(), TransferError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        batch.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        let Some(first) = batch.first() else { return Ok(()) };
        let goes_on = self.last.as_ref().is_some_and(|last| last.order() <= first.order());
        let at = self.rows_end;
        for row in &batch {
            let mut line = serde_json::to_vec(row).map_err(|error| self.failed(error))?;
            line.push(b'\n');
            self.rows.write_all(&line).map_err(|source| cannot(&self.folder, source))?;
            self.rows_end += line.len() as u64;
        }
        match self.runs.last_mut() {
            Some(run) if goes_on => run.end = self.rows_end,
            _ => self.runs.push(Run { at, end: self.rows_end }),
        }
        self.last = batch.pop();
        Ok(())
    }

    fn failed(&self, error: serde_json::Error) -> TransferError {
        cannot(&self.folder, error.into())
    }

    /// All that was read, in order.
    pub(super) fn sorted(mut self) -> Result<(Values, Groups), TransferError> {
        if let Some((mut row, live)) = self.newest.take() {
            row.live = self.keep(&live)?;
            self.add(row)?;
        }
        self.end_run()?;
        let Self { folder, values, rows, runs, .. } = self;
        let file = |writer: BufWriter<File>| {
            writer.into_inner().map_err(|error| cannot(&folder, error.into_error()))
        };
        let (values, rows) = (file(values)?, file(rows)?);
        let mut groups = Groups {
            rows,
            runs: runs.into_iter().map(RunReader::new).collect(),
            heap: BinaryHeap::new(),
            folder: folder.clone(),
        };
        for at in 0..groups.runs.len() {
            groups.advance(at)?;
        }
        Ok((Values { file: values, folder }, groups))
    }
}

/// The values of an import.
pub(super) struct Values {
    file: File,
    folder: PathBuf,
}

impl Values {
    /// A version's value. None for a tombstone.
    pub(super) fn value(&self, row: &Row) -> Result<Option<Bytes>, TransferError> {
        if row.removed {
            return Ok(None);
        }
        self.read(row.value).map(|bytes| Some(bytes.into()))
    }

    /// What is live after a key's last version.
    pub(super) fn live(&self, row: &Row) -> Result<Live, TransferError> {
        let text = self.read(row.live)?;
        Live::parse(&text).map_err(|error| cannot(&self.folder, error.into()))
    }

    fn read(&self, place: Place) -> Result<Vec<u8>, TransferError> {
        let mut bytes = vec![0; place.bytes];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place.at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| cannot(&self.folder, source))?;
        Ok(bytes)
    }
}

/// The rows of an import, key by key.
pub(super) struct Groups {
    rows: File,
    runs: Vec<RunReader>,
    heap: BinaryHeap<Reverse<Next>>,
    folder: PathBuf,
}

/// The next row of a run.
struct Next {
    row: Row,
    run: usize,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.row.order().cmp(&other.row.order())
    }
}

impl Groups {
    /// All rows of the next key, by ascending `n`. None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Row>>, TransferError> {
        let mut group: Vec<Row> = Vec::new();
        while let Some(Reverse(next)) = self.heap.peek() {
            if group.first().is_some_and(|first| first.key != next.row.key) {
                break;
            }
            let Some(Reverse(Next { row, run })) = self.heap.pop() else { break };
            group.push(row);
            self.advance(run)?;
        }
        Ok((!group.is_empty()).then_some(group))
    }

    fn advance(&mut self, run: usize) -> Result<(), TransferError> {
        let row = self.runs[run].next(&self.rows).map_err(|source| cannot(&self.folder, source))?;
        self.heap.extend(row.map(|row| Reverse(Next { row, run })));
        Ok(())
    }
}

/// Reads one run. All share one file.
struct RunReader {
    run: Run,
    buffer: Vec<u8>,
    used: usize,
}

impl RunReader {
    fn new(run: Run) -> Self {
        Self { run, buffer: Vec::new(), used: 0 }
    }

    fn next(&mut self, file: &File) -> io::Result<Option<Row>> {
        loop {
            let rest = &self.buffer[self.used..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let row = serde_json::from_slice(&rest[..length])?;
                self.used += length + 1;
                return Ok(Some(row));
            }
            if self.run.at == self.run.end {
                return match rest.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.fill(file)?;
        }
    }

    fn fill(&mut self, mut file: &File) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let piece = (self.run.end - self.run.at).min(READ_BYTES as u64);
        file.seek(SeekFrom::Start(self.run.at))?;
        let read = file.take(piece).read_to_end(&mut self.buffer)? as u64;
        if read < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.run.at += read;
        Ok(())
    }
}

fn cannot(folder: &Path, source: io::Error) -> TransferError {
    TransferError::Temporary { folder: folder.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: usize = 64 << 10;
    const LIVE: &[u8] = br#"{"lease":{},"messages":[],"last_message":5}"#;

    fn row(key: &str, n: u64, line: u64) -> Row {
        Row {
            key: ProfileKey::new("S", "global", key).unwrap(),
            n,
            line,
            written_ms: 1,
            created_ms: 1,
            label: Some("x".repeat(200)),
            removed: false,
            user_ids: vec![7],
            load_count: 0,
            foreign: None,
            session: None,
            value: Place::default(),
            live: Place::default(),
            is_messages: false,
        }
    }

    #[test]
    fn rows_that_fill_many_runs_come_back_by_key_and_number() {
        let mut spool = Spool::with_runs_of(RUN, &std::env::temp_dir()).unwrap();
        let (keys, versions) = (307, 9);
        // A step that has no factor in common with the count visits each once, far out of order.
        let all = keys * versions;
        for line in 0..all {
            let at = line * 7919 % all;
            let (key, n) = (at / versions, at % versions + 1);
            let value = format!("{key}/{n}");
            spool
                .push(row(&key.to_string(), n, line), Some(value.as_bytes()), LIVE.into())
                .unwrap();
        }
        assert_eq!(spool.versions, all);
        let (values, mut groups) = spool.sorted().unwrap();
        assert!(groups.runs.len() > 10, "too few to merge: runs=`{}`", groups.runs.len());
        let mut names = Vec::new();
        while let Some(group) = groups.next().unwrap() {
            let name = group[0].key.key().to_owned();
            assert!(group.iter().map(|row| row.n).eq(1..=versions), "{name}");
            for row in &group {
                let value = values.value(row).unwrap().unwrap();
                assert_eq!(value, format!("{name}/{}", row.n));
            }
            assert_eq!(values.live(&group[8]).unwrap().last_message, 5);
            names.push(name);
        }
        assert_eq!(names.len() as u64, keys);
        assert!(names.is_sorted());
    }

    #[test]
    fn rows_in_order_make_one_run() {
        let mut spool = Spool::with_runs_of(RUN, &std::env::temp_dir()).unwrap();
        for line in 0..3000 {
            let key = format!("{:06}", line / 2);
            spool.push(row(&key, line % 2 + 1, line), None, Vec::new()).unwrap();
        }
        let (_, groups) = spool.sorted().unwrap();
        assert_eq!(groups.runs.len(), 1);
    }
}
