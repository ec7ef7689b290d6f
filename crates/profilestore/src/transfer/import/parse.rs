//! Lines into versions, on all processors.

use std::{
    collections::BTreeMap,
    io::BufRead,
    ops::Range,
    panic::resume_unwind,
    thread::{available_parallelism, scope},
};

use super::{
    super::{
        ImportReport, MAX_LINE_BYTES, MAX_MALFORMED_LINES, MalformedLine, Progress, TransferError,
        line::{Content, Line, Lines, Malformed, Version},
    },
    live::Live,
    spool::{Place, Row, Spool},
};
use crate::{
    ProfileKey,
    data_store::{Digest, LeaseState},
    document::{Document, Surroundings, parse_messages},
    record::{RecordError, Stored, UserId},
    storable::DOCUMENT,
};
use bytes::Bytes;

/// How much is parsed at once by each processor: bytes of text, about, and lines.
const CHUNK_BYTES: usize = 512 << 10;
const CHUNK_LINES: usize = 1024;

/// How many processors are used at most.
const MAX_THREADS: usize = 4;

/// Reads all lines into the spool. Answers with the keys that are to be left out, and why.
pub(super) fn read(
    reader: impl BufRead,
    spool: &mut Spool,
    report: &mut ImportReport,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<BTreeMap<ProfileKey, String>, TransferError> {
    let threads = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let mut refused = BTreeMap::new();
    let mut lines = Lines::new(reader);
    progress(Progress::Read { bytes: 0 });
    loop {
        let mut chunks = Vec::new();
        while chunks.len() < threads
            && let Some(chunk) = Chunk::next(&mut lines)?
        {
            chunks.push(chunk);
        }
        if chunks.is_empty() {
            break;
        }
        for (line, parsed) in parse_all(&chunks) {
            match parsed {
                Ok(Parsed { row, value, live }) => spool.push(row, value.as_deref(), live)?,
                Err(Malformed { key, why }) => {
                    if let Some(key) = &key {
                        refused
                            .entry(key.clone())
                            .or_insert_with(|| format!("line {line} is malformed: {why}"));
                    }
                    report.malformed.push(MalformedLine { line, key, why });
                    if report.malformed.len() == MAX_MALFORMED_LINES {
                        return Err(TransferError::NotAnExport(report.malformed.swap_remove(0)));
                    }
                }
            }
        }
        progress(Progress::Read { bytes: lines.bytes });
    }
    report.lines = lines.number;
    Ok(refused)
}

/// Some lines that follow each other.
#[derive(Default)]
struct Chunk {
    text: Vec<u8>,
    lines: Vec<ChunkLine>,
}

struct ChunkLine {
    number: u64,
    text: Range<usize>,
    cut: bool,
}

impl Chunk {
    /// None at the end of the input.
    fn next(lines: &mut Lines<impl BufRead>) -> Result<Option<Self>, TransferError> {
        let mut chunk = Self::default();
        while chunk.text.len() < CHUNK_BYTES && chunk.lines.len() < CHUNK_LINES {
            let after = lines.number;
            let read =
                lines.next().map_err(|source| TransferError::Read { line: after, source })?;
            let Some((text, cut)) = read else { break };
            let from = chunk.text.len();
            chunk.text.extend_from_slice(text);
            let text = from..chunk.text.len();
            chunk.lines.push(ChunkLine { number: after + 1, text, cut });
        }
        Ok((!chunk.lines.is_empty()).then_some(chunk))
    }

    fn parse(&self) -> Vec<(u64, Result<Parsed, Malformed>)> {
        let lines = self.lines.iter().filter(|line| !line.text.is_empty());
        lines
            .map(|line| {
                let text = &self.text[line.text.clone()];
                (line.number, Parsed::of(line.number, text, line.cut))
            })
            .collect()
    }
}

/// The versions of all chunks, in order.
fn parse_all(chunks: &[Chunk]) -> Vec<(u64, Result<Parsed, Malformed>)> {
    let Some((first, others)) = chunks.split_first() else { return Vec::new() };
    scope(|scope| {
        let others: Vec<_> =
            others.iter().map(|chunk| scope.spawn(move || chunk.parse())).collect();
        let mut all = first.parse();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    })
}

/// A version that is to be stored, or messages of one.
struct Parsed {
    row: Row,
    /// None for a tombstone, and for messages.
    value: Option<Bytes>,
    /// What is live if it is its key's last version: a [`Live`].
    live: Vec<u8>,
}

impl Parsed {
    fn of(number: u64, text: &[u8], cut: bool) -> Result<Self, Malformed> {
        if cut {
            return Err(Malformed {
                key: Line::parse(text).err().and_then(|malformed| malformed.key),
                why: format!("it is too long: limit=`{MAX_LINE_BYTES}`"),
            });
        }
        let line = Line::parse(text)?;
        let key = line.key.clone();
        Self::of_line(number, line).map_err(|why| Malformed { key: Some(key), why })
    }

    fn of_line(number: u64, line: Line) -> Result<Self, String> {
        let row = Row {
            key: line.key,
            n: line.n,
            line: number,
            written_ms: line.updated_ms,
            created_ms: line.updated_ms,
            label: None,
            removed: true,
            user_ids: Vec::new(),
            load_count: 0,
            foreign: None,
            session: None,
            value: Place::default(),
            live: Place::default(),
            is_messages: false,
        };
        match line.content {
            Content::Version(version) => Self::version(row, version),
            Content::Messages(text) => {
                DOCUMENT
                    .check(&text)
                    .map_err(|wrong| format!("the messages cannot be stored: {wrong}"))?;
                let (last_message, messages) = parse_messages(&text, line.updated_ms)
                    .map_err(|wrong| format!("the messages cannot be stored: {wrong}"))?;
                let live = Live::new(LeaseState::default(), messages, last_message).written()?;
                Ok(Self { row: Row { is_messages: true, ..row }, value: None, live })
            }
        }
    }

    fn version(mut row: Row, line: Version) -> Result<Self, String> {
        row.created_ms = line.created_ms;
        row.label = line.label;
        let Some(text) = line.value else {
            row.user_ids = line.user_ids.iter().flatten().map(UserId::indexed).collect();
            return Ok(Self { row, value: None, live: Live::default().written()? });
        };
        row.removed = false;
        DOCUMENT.check(&text).map_err(|wrong| format!("the value cannot be stored: {wrong}"))?;
        let (numbers, named) = by_kind(line.user_ids.as_deref().unwrap_or_default());
        let surroundings = Surroundings {
            written_ms: row.written_ms,
            created_ms: row.created_ms,
            user_ids: line.user_ids.map(|_| numbers),
            metadata: line.metadata,
        };
        let mut document = Document::parse(&text, surroundings);
        document
            .check_messages()
            .map_err(|wrong| format!("the value cannot be stored: {wrong}"))?;
        if let Stored::Profile(record) = &mut document.stored {
            record.named_users = named;
        }
        let mut value = document.stored.encode();
        if matches!(value, Err(RecordError::RecordTooLarge { .. })) {
            // The messages are stored beside the version, which then has no room for them as well.
            document.leave_messages_out();
            value = document.stored.encode();
        }
        let Document { stored, foreign, lease, messages, last_message } = document;
        row.user_ids = stored.indexed_users();
        row.load_count = lease.load_count;
        row.foreign = foreign;
        let session = lease.holder.as_ref().and_then(|holder| holder.document.as_ref());
        row.session = session.map(|session| Digest::of(session.to_string().as_bytes()).0);
        Ok(Self {
            row,
            value: Some(value.map_err(|e| e.to_string())?),
            live: Live::new(lease, messages, last_message).written()?,
        })
    }
}

/// Users with numbers, which a document has too, and those with names.
fn by_kind(users: &[UserId]) -> (Vec<i64>, Vec<UserId>) {
    let named = users.iter().filter(|user| user.number().is_none()).cloned();
    (users.iter().filter_map(UserId::number).collect(), named.collect())
}
