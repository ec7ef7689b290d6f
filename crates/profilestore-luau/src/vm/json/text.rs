//! A text that is known to be JSON, as serde_json takes it without reading it through once more.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::value::RawValue;

/// How serde_json tells its serialiser that a text is JSON already; [`profilestore::storable`]
/// knows it, too.
const RAW: &str = "$serde_json::private::RawValue";

/// A text that was written as JSON by [`super::encode`], or read as JSON.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW, 1)?;
        raw.serialize_field(RAW, self.0)?;
        raw.end()
    }
}

impl Text<'_> {
    /// The same for callees that take nothing else.
    pub(crate) fn raw_value(&self) -> Box<RawValue> {
        debug_assert!(serde_json::from_str::<&RawValue>(self.0).is_ok(), "it is JSON");
        serde_json::value::to_raw_value(self).expect("memory takes all that is written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is() {
        #[derive(Serialize)]
        struct Around<'a> {
            data: Text<'a>,
        }

        let text = r#"{"b":[1.50,76561198000000001],"a":"\u0041"}"#;
        assert_eq!(Text(text).raw_value().get(), text);
        let around = serde_json::to_string(&Around { data: Text(text) }).expect("JSON");
        assert_eq!(around, format!(r#"{{"data":{text}}}"#));
        let value = serde_json::to_value(Text(text)).expect("JSON");
        assert_eq!(value["a"], "A");
    }
}
