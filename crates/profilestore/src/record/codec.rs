//! The envelope of a stored value: a form byte, a codec byte, a payload.
//!
//! ```text
//! byte 0   form    1 a profile, 2 a foreign value, 3 nothing but messages
//! byte 1   codec   0 plain, 1 zstd (level 1, one frame that states its size)
//! byte 2.. payload JSON of `Record`, `Foreign` or `MessagesOnly`
//! ```
//!
//! Compressing here rather than in the store's thread keeps that thread free, and zstd at level 1
//! is faster than writing the bytes that it saves. The scratch memory and the compression context
//! of a thread are kept, because making them costs more than compressing a few kilobytes.

use std::cell::RefCell;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::get_frame_content_size,
};

use super::{RecordError, Stored};
use crate::data_store::MAX_VALUE_BYTES;

const HEADER: usize = 2;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const LEVEL: i32 = 1;

/// Payloads below this size gain nothing from compression.
const COMPRESS_FROM: usize = 128;

/// The largest payload. Plain, it just fits the largest value of a store.
pub(super) const MAX_PAYLOAD: usize = MAX_VALUE_BYTES - HEADER;

/// Scratch memory beyond this size is given back after use.
const KEEP_SCRATCH: usize = 1 << 20;

/// The first byte of a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    Profile = 1,
    Foreign = 2,
    MessagesOnly = 3,
}

struct Scratch {
    payload: Vec<u8>,
    packed: Vec<u8>,
    compressor: Compressor<'static>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The stored bytes of a content.
pub(super) fn encode(form: Form, content: &impl Serialize) -> Result<Bytes, RecordError> {
    with_scratch(|scratch| scratch.encode(form, content))
}

/// Fails where [`encode`] does, and compresses nothing.
pub(super) fn check(content: &impl Serialize) -> Result<(), RecordError> {
    with_scratch(|scratch| scratch.write(content))
}

fn with_scratch<T>(
    work: impl FnOnce(&mut Scratch) -> Result<T, RecordError>,
) -> Result<T, RecordError> {
    SCRATCH.with_borrow_mut(|slot| {
        let scratch = match slot {
            Some(scratch) => scratch,
            None => slot.insert(Scratch {
                payload: Vec::new(),
                packed: Vec::new(),
                compressor: Compressor::new(LEVEL)
                    .map_err(|e| damaged(format!("zstd cannot start: {e}")))?,
            }),
        };
        let done = work(scratch);
        scratch.payload.clear();
        scratch.packed.clear();
        scratch.payload.shrink_to(KEEP_SCRATCH);
        scratch.packed.shrink_to(KEEP_SCRATCH);
        done
    })
}

/// Reads stored bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Stored, RecordError> {
    let &[form, codec, ref payload @ ..] = bytes else {
        return Err(damaged(format!("it is only {} bytes long", bytes.len())));
    };
    let form = match form {
        1 => Form::Profile,
        2 => Form::Foreign,
        3 => Form::MessagesOnly,
        found => return Err(RecordError::Unknown { what: "form", found }),
    };
    match codec {
        PLAIN => read(form, payload),
        ZSTD => read(form, &decompress(payload)?),
        found => Err(RecordError::Unknown { what: "codec", found }),
    }
}

impl Scratch {
    /// Writes the content to `payload`, if it is not too large.
    fn write(&mut self, content: &impl Serialize) -> Result<(), RecordError> {
        serde_json::to_writer(&mut self.payload, content)
            .map_err(|e| damaged(format!("it cannot be written: {e}")))?;
        let size = self.payload.len();
        if size > MAX_PAYLOAD {
            return Err(RecordError::RecordTooLarge { size: size as u64, limit: MAX_PAYLOAD });
        }
        Ok(())
    }

    fn encode(&mut self, form: Form, content: &impl Serialize) -> Result<Bytes, RecordError> {
        self.write(content)?;
        let Self { payload, packed, compressor } = self;
        if payload.len() >= COMPRESS_FROM {
            // Room for less than the plain form: what does not fit is not worth compressing.
            packed.reserve(payload.len() - 1);
            if compressor.compress_to_buffer(payload, packed).is_ok()
                && packed.len() < payload.len()
            {
                return Ok(envelope(form, ZSTD, packed));
            }
        }
        Ok(envelope(form, PLAIN, payload))
    }
}

fn envelope(form: Form, codec: u8, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&[form as u8, codec]);
    bytes.extend_from_slice(payload);
    bytes.into()
}

fn read(form: Form, payload: &[u8]) -> Result<Stored, RecordError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(RecordError::RecordTooLarge { size: payload.len() as u64, limit: MAX_PAYLOAD });
    }
    fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, RecordError> {
        serde_json::from_slice(payload)
            .map_err(|e| damaged(format!("its content cannot be read: {e}")))
    }
    Ok(match form {
        Form::Profile => Stored::Profile(json(payload)?),
        Form::Foreign => Stored::Foreign(json(payload)?),
        Form::MessagesOnly => Stored::MessagesOnly(json(payload)?),
    })
}

/// Unpacks one frame. Its size is checked before memory is allocated.
fn decompress(frame: &[u8]) -> Result<Vec<u8>, RecordError> {
    let size = match get_frame_content_size(frame) {
        Ok(Some(size)) => size,
        Ok(None) | Err(_) => return Err(damaged("its zstd frame states no size".into())),
    };
    let fits = usize::try_from(size).ok().filter(|size| *size <= MAX_PAYLOAD);
    let size = fits.ok_or(RecordError::RecordTooLarge { size, limit: MAX_PAYLOAD })?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let failed = |e: std::io::Error| damaged(format!("its zstd frame cannot be unpacked: {e}"));
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(failed)?),
        };
        let mut payload = Vec::with_capacity(size);
        decompressor.decompress_to_buffer(frame, &mut payload).map_err(failed)?;
        Ok(payload)
    })
}

fn damaged(reason: String) -> RecordError {
    RecordError::Damaged { reason }
}
