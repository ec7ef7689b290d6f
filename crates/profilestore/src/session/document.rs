//! The data of a session whose game server runs in another process: one JSON document, which is not
//! taken apart here.

use std::{
    any::{Any, TypeId},
    sync::Arc,
};

use serde_json::value::RawValue;

use crate::{
    data::{Codec, Data, DataType},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    migration::DataVersion,
    record::Record,
    storable::{DATA, Problem, Unstorable},
};

/// A whole document, or the note that it is with its game server.
pub(crate) enum Document {
    /// It was just read, or is on its way to the store.
    Here(Box<RawValue>),
    /// Only the game server and the store have it.
    Away,
}

impl Document {
    /// A document from outside, if it can be stored.
    pub(crate) fn new(json: &RawValue) -> Result<Self, Unstorable> {
        DATA.check_size(json.get().len())?;
        let json = compact(json)?;
        DATA.check(&json)?;
        Ok(Self::Here(json))
    }

    /// The document in some data of a session that is hosted.
    pub(super) fn of(data: &dyn Data) -> Option<&Self> {
        (data as &dyn Any).downcast_ref()
    }

    pub(super) fn json(&self) -> Option<&RawValue> {
        match self {
            Self::Here(json) => Some(json),
            Self::Away => None,
        }
    }
}

impl Data for Document {
    /// What is here was checked when it came, or is what is stored.
    fn to_json(&self) -> Result<Box<RawValue>, Unstorable> {
        self.json().map(ToOwned::to_owned).ok_or_else(|| {
            Problem::NoJson { reason: "the data is with its game server".into() }.at("")
        })
    }

    fn duplicate(&self) -> Box<dyn Data> {
        Box::new(match self {
            Self::Here(json) => Self::Here(json.clone()),
            Self::Away => Self::Away,
        })
    }
}

/// The same JSON without white space between its parts: a stored document is one line.
fn compact(json: &RawValue) -> Result<Box<RawValue>, Unstorable> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let mut compacted = Vec::with_capacity(json.get().len());
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.get().bytes() {
        if !in_text && is_space(byte) {
            continue;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ => {}
        }
        compacted.push(byte);
    }
    String::from_utf8(compacted)
        .map_err(|error| error.to_string())
        .and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()))
        .map_err(|reason| Problem::NoJson { reason }.at(""))
}

/// Opens and saves documents as they are.
pub(crate) struct DocumentCodec {
    template: Option<Box<RawValue>>,
    /// The data version that the game server's program knows.
    version: Option<DataVersion>,
}

impl DocumentCodec {
    /// Fails when the template cannot be stored, or the version says nothing that makes sense.
    pub(crate) fn new(template: Option<&RawValue>, version: Option<DataVersion>) -> Result<Self> {
        let template = match template.map(Document::new).transpose()? {
            Some(Document::Here(json)) => Some(json),
            _ => None,
        };
        version.map_or(Ok(()), check_version)?;
        Ok(Self { template, version })
    }

    /// For a session that was there before: it was opened by another host.
    pub(crate) fn adopting() -> Self {
        Self { template: None, version: None }
    }
}

pub(super) fn check_version(version: DataVersion) -> Result<()> {
    let DataVersion { version, readable_from } = version;
    if version == 0 || readable_from > version {
        let message = format!(
            "a data version begins with 1, and programs that know it can read it: \
             version=`{version}` readable_from=`{readable_from}`"
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

impl Codec for DocumentCodec {
    fn decode(&self, json: &RawValue) -> Result<Arc<dyn Data>> {
        Ok(Arc::new(Document::Here(json.to_owned())))
    }

    fn open(&self, _: &ProfileKey, record: &Record) -> Result<Arc<dyn Data>> {
        self.check_not_newer(record)?;
        self.decode(&record.data)
    }

    fn check_not_newer(&self, record: &Record) -> Result<()> {
        DataVersion::check_not_newer(self.version, &record.meta_tags)
    }

    fn stamp(&self, record: &mut Record) {
        DataVersion::stamp(self.version, &mut record.meta_tags);
    }

    fn template(&self) -> Result<Arc<dyn Data>> {
        match &self.template {
            Some(template) => self.decode(template),
            None => Err(Error::new(
                ErrorKind::NotFound,
                "there is no such profile, and the start brings no data for a new one",
            )),
        }
    }

    fn check(&self, _: &dyn Data, _: &RawValue, _: bool) -> Result<()> {
        Ok(())
    }

    fn data_type(&self) -> DataType {
        DataType { id: TypeId::of::<Document>(), name: "a document" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_document_is_stored_as_one_line_and_nothing_in_it_is_changed() {
        let given =
            "{ \"a b\" :\t[ 1e400x, \"\\\" \\\\\" , 9223372036854775807 ],\r\n \"n\\n\": 1.0 }";
        let given = given.replace("1e400x", "0.10");
        let Document::Here(json) = Document::new(&raw(&given)).unwrap() else { panic!("gone") };
        assert_eq!(json.get(), r#"{"a b":[0.10,"\" \\",9223372036854775807],"n\n":1.0}"#);
    }

    #[test]
    fn a_document_that_cannot_be_stored_is_refused_with_the_place() {
        for (json, path) in [
            (r#"{"a":{"b":1e400}}"#, "/a/b"),
            (r#"{"a":"\ud800"}"#, "/a"),
            (r#"{"a":1,"a":2}"#, "/a"),
        ] {
            assert_eq!(Document::new(&raw(json)).err().unwrap().path, path, "{json}");
        }
    }
}
