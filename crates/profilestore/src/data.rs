//! A profile's data as the untyped engine sees it, and the codec that a typed store brings along.

use std::{
    any::{Any, TypeId, type_name},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    migration::Migrations,
    reconcile::reconcile,
    record::Record,
    storable::{self, Unstorable},
};

/// What a profile's data must be able to do: become JSON and back, and be copied.
///
/// Implemented for every type that qualifies; there is nothing to implement by hand.
pub trait ProfileData: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> ProfileData for T {}

/// Data of some type.
pub(crate) trait Data: Any + Send + Sync {
    /// The data as it is stored. Fails when it cannot be.
    fn to_json(&self) -> Result<Box<RawValue>, Unstorable>;
    fn duplicate(&self) -> Box<dyn Data>;
}

impl<T: ProfileData> Data for T {
    fn to_json(&self) -> Result<Box<RawValue>, Unstorable> {
        storable::DATA.encode(self)
    }

    fn duplicate(&self) -> Box<dyn Data> {
        Box::new(self.clone())
    }
}

/// The data as its type. None only if a store of another type loaded it.
pub(crate) fn typed<T: ProfileData>(data: &dyn Data) -> Option<&T> {
    (data as &dyn Any).downcast_ref()
}

/// The same to change.
pub(crate) fn typed_mut<T: ProfileData>(data: &mut dyn Data) -> Option<&mut T> {
    (data as &mut dyn Any).downcast_mut()
}

/// Which type the data of a store has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataType {
    pub(crate) id: TypeId,
    /// For people.
    pub(crate) name: &'static str,
}

/// Turns stored JSON into data of a type, and gives a new profile its data.
pub(crate) trait Codec: Send + Sync {
    /// Data of today's shape.
    fn decode(&self, json: &RawValue) -> Result<Arc<dyn Data>>;
    /// The data of a profile's record, migrated if it must be.
    fn open(&self, key: &ProfileKey, record: &Record) -> Result<Arc<dyn Data>>;
    /// Fails with [`ErrorKind::NewerData`] when this program is too old to open a record.
    fn check_not_newer(&self, record: &Record) -> Result<()>;
    /// Marks a record with the data version of what is saved from now on.
    fn stamp(&self, record: &mut Record);
    fn template(&self) -> Result<Arc<dyn Data>>;
    /// Whether data may be saved, whose JSON this is: asks the store's validator, and with `verify`
    /// opens the JSON again.
    fn check(&self, data: &dyn Data, json: &RawValue, verify: bool) -> Result<()>;
    fn data_type(&self) -> DataType;
}

/// Says what is wrong with some data, if anything. See [`crate::StoreBuilder::validate`].
pub(crate) type Validate<T> = dyn Fn(&T) -> Result<(), String> + Send + Sync;

fn to_raw(value: &serde_json::Value) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value).map_err(|error| {
        Error::new(ErrorKind::Invalid, "the migrated data is no JSON").caused_by(error)
    })
}

/// Data as a value, if it can be stored.
fn to_value(data: &impl Serialize) -> Result<serde_json::Value> {
    let json = storable::DATA.encode(data)?;
    serde_json::from_str(json.get())
        .map_err(|error| Error::new(ErrorKind::Invalid, "the data is no JSON").caused_by(error))
}

/// The codec of a typed store.
pub(crate) struct TypedCodec<T> {
    template: Option<serde_json::Value>,
    reconcile: bool,
    /// None: whatever the data's version, it is left at that.
    migrations: Option<Migrations>,
    validate: Option<Arc<Validate<T>>>,
    marker: PhantomData<fn() -> T>,
}

impl<T: ProfileData> TypedCodec<T> {
    /// A template that cannot become JSON is an error.
    pub(crate) fn new(
        template: Option<&T>,
        reconcile: bool,
        migrations: Migrations,
        validate: Option<Arc<Validate<T>>>,
    ) -> Result<Self> {
        if let Some(problem) = migrations.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        let template = template.map(to_value).transpose()?;
        Ok(Self {
            template,
            reconcile,
            migrations: Some(migrations),
            validate,
            marker: PhantomData,
        })
    }

    /// For a type that takes data of any shape and version, and never makes a new profile.
    pub(crate) fn as_it_is() -> Self {
        Self {
            template: None,
            reconcile: false,
            migrations: None,
            validate: None,
            marker: PhantomData,
        }
    }

    pub(crate) fn decode_typed(&self, json: &RawValue) -> Result<T> {
        let hint = if self.reconcile {
            ""
        } else {
            "; if fields were added since, let the store reconcile"
        };
        let wrong = |error: serde_json::Error| {
            Error::new(
                ErrorKind::Undecodable,
                format!("the stored data does not fit the program's type{hint}"),
            )
            .caused_by(error)
        };
        match &self.template {
            Some(template) if self.reconcile => {
                let mut value = serde_json::from_str(json.get()).map_err(wrong)?;
                reconcile(&mut value, template);
                serde_json::from_value(value).map_err(wrong)
            }
            _ => serde_json::from_str(json.get()).map_err(wrong),
        }
    }

    pub(crate) fn open_typed(&self, key: &ProfileKey, record: &Record) -> Result<T> {
        let migrate =
            |migrations: &Migrations| migrations.migrate(key, record.data.get(), &record.meta_tags);
        let data = match self.migrations.as_ref().map(migrate).transpose()?.flatten() {
            Some(migrated) => self.decode_typed(&to_raw(&migrated)?),
            None => self.decode_typed(&record.data),
        }?;
        self.validate(&data)?;
        Ok(data)
    }

    /// Asks the store's validator, which is the program's.
    fn validate(&self, data: &T) -> Result<()> {
        let Some(validate) = &self.validate else { return Ok(()) };
        let answer = catch_unwind(AssertUnwindSafe(|| validate(data)))
            .unwrap_or_else(|_| Err("the validator panicked".into()));
        answer.map_err(|why| {
            Error::new(ErrorKind::Refused, format!("the store's validator refused the data: {why}"))
        })
    }

    /// Opens JSON that is about to be saved, and compares what it would be saved as then.
    fn verify(&self, json: &RawValue) -> Result<()> {
        let unlike = |path: &str, why: &str| {
            Error::new(
                ErrorKind::Invalid,
                format!("what would be saved does not open again as it is: at `{path}`: {why}"),
            )
        };
        let opened = self.decode_typed(json).map_err(|error| {
            match serde_json::from_str::<T>(json.get()) {
                Err(error) => {
                    unlike(&storable::path_of_error(json.get(), &error), &error.to_string())
                }
                Ok(_) => unlike("", &error.to_string()),
            }
        })?;
        let again = storable::DATA.encode(&opened)?;
        if again.get() == json.get() {
            return Ok(());
        }
        let value = |json: &RawValue| {
            serde_json::from_str(json.get()).map_err(|error| unlike("", &error.to_string()))
        };
        match storable::difference(&value(json)?, &value(&again)?) {
            Some(path) => Err(unlike(&path, "it would be another value, or none")),
            None => Ok(()),
        }
    }

    pub(crate) fn template_typed(&self) -> Result<T> {
        if self.migrations.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "there is no such profile"));
        }
        let empty = serde_json::Value::Object(serde_json::Map::new());
        let template = self.template.as_ref().unwrap_or(&empty);
        serde_json::from_value(template.clone()).map_err(|error| {
            Error::new(ErrorKind::Invalid, "a new profile has no data: give the store a template")
                .caused_by(error)
        })
    }

    /// Fills what the template has and the data lacks.
    pub(crate) fn reconcile(&self, data: &T) -> Result<T> {
        let Some(template) = &self.template else { return Ok(data.clone()) };
        let wrong = |error| {
            Error::new(ErrorKind::Undecodable, "the data cannot be reconciled with the template")
                .caused_by(error)
        };
        let mut value = to_value(data)?;
        reconcile(&mut value, template);
        serde_json::from_value(value).map_err(wrong)
    }
}

impl<T: ProfileData> Codec for TypedCodec<T> {
    fn decode(&self, json: &RawValue) -> Result<Arc<dyn Data>> {
        self.decode_typed(json).map(|data| Arc::new(data) as Arc<dyn Data>)
    }

    fn open(&self, key: &ProfileKey, record: &Record) -> Result<Arc<dyn Data>> {
        self.open_typed(key, record).map(|data| Arc::new(data) as Arc<dyn Data>)
    }

    fn check_not_newer(&self, record: &Record) -> Result<()> {
        let migrations = self.migrations.as_ref();
        migrations.map_or(Ok(()), |migrations| migrations.check_not_newer(&record.meta_tags))
    }

    fn stamp(&self, record: &mut Record) {
        if let Some(migrations) = &self.migrations {
            migrations.stamp(&mut record.meta_tags);
        }
    }

    fn check(&self, data: &dyn Data, json: &RawValue, verify: bool) -> Result<()> {
        if let Some(data) = typed(data) {
            self.validate(data)?;
        }
        if verify { self.verify(json) } else { Ok(()) }
    }

    fn template(&self) -> Result<Arc<dyn Data>> {
        self.template_typed().map(|data| Arc::new(data) as Arc<dyn Data>)
    }

    fn data_type(&self) -> DataType {
        DataType { id: TypeId::of::<T>(), name: type_name::<T>() }
    }
}

fn json_of(data: &dyn Data) -> Result<Box<RawValue>> {
    Ok(catch_unwind(AssertUnwindSafe(|| data.to_json())).map_err(|_| {
        Error::new(ErrorKind::Invalid, "the data cannot be stored as JSON: its serializer panicked")
    })??)
}

/// Encodes data with what belongs to it.
pub(crate) fn encode(data: &dyn Data, meta: &Record) -> Result<Bytes> {
    Ok(Record { data: json_of(data)?, ..meta.clone() }.encode_checked()?)
}

/// The same if the store's validator agrees and, with `verify`, if it opens again. Answers with the
/// size of the data's JSON too.
pub(crate) fn encode_for_save(
    data: &dyn Data,
    meta: &Record,
    codec: &dyn Codec,
    verify: bool,
) -> Result<(Bytes, usize)> {
    let (record, size) = record_for_save(data, meta, codec, verify)?;
    Ok((record.encode_checked()?, size))
}

/// Fails where [`encode_for_save`] does, and compresses nothing.
pub(crate) fn check_for_save(
    data: &dyn Data,
    meta: &Record,
    codec: &dyn Codec,
    verify: bool,
) -> Result<()> {
    let (record, _) = record_for_save(data, meta, codec, verify)?;
    record.check_encodes().map_err(Error::from)
}

/// The record to be encoded, and the size of its data's JSON.
fn record_for_save(
    data: &dyn Data,
    meta: &Record,
    codec: &dyn Codec,
    verify: bool,
) -> Result<(Record, usize)> {
    let json = json_of(data)?;
    let checked = catch_unwind(AssertUnwindSafe(|| codec.check(data, &json, verify)));
    checked.map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            "what would be saved does not open again: its decoder panicked",
        )
    })??;
    let size = json.get().len();
    Ok((Record { data: json, ..meta.clone() }, size))
}

/// A message as it is stored.
pub(crate) fn payload(message: &impl Serialize) -> Result<Bytes> {
    let json = storable::MESSAGE.encode(message)?;
    Ok(Bytes::from(String::from(Box::<str>::from(json))))
}
