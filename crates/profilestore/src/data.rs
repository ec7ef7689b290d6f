//! A profile's data as the untyped engine sees it, and the codec that a typed store brings along.

use std::{any::Any, marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    error::{Error, ErrorKind, Result},
    reconcile::reconcile,
};

/// What a profile's data must be able to do: become JSON and back, and be copied.
///
/// Implemented for every type that qualifies; there is nothing to implement by hand.
pub trait ProfileData: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> ProfileData for T {}

/// Data of some type.
pub(crate) trait Data: Any + Send + Sync {
    fn to_json(&self) -> serde_json::Result<Box<RawValue>>;
    fn duplicate(&self) -> Box<dyn Data>;
}

impl<T: ProfileData> Data for T {
    fn to_json(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
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

/// Turns stored JSON into data of a type, and gives a new profile its data.
pub(crate) trait Codec: Send + Sync {
    fn decode(&self, json: &RawValue) -> Result<Arc<dyn Data>>;
    fn template(&self) -> Result<Arc<dyn Data>>;
}

/// The codec of a typed store.
pub(crate) struct TypedCodec<T> {
    template: Option<serde_json::Value>,
    reconcile: bool,
    marker: PhantomData<fn() -> T>,
}

impl<T: ProfileData> TypedCodec<T> {
    /// A template that cannot become JSON is an error.
    pub(crate) fn new(template: Option<&T>, reconcile: bool) -> Result<Self> {
        let template = template
            .map(serde_json::to_value)
            .transpose()
            .map_err(|error| Error::new(ErrorKind::Invalid, "the template cannot be stored as JSON").caused_by(error))?;
        Ok(Self { template, reconcile, marker: PhantomData })
    }

    pub(crate) fn decode_typed(&self, json: &RawValue) -> Result<T> {
        let hint = if self.reconcile { "" } else { "; if fields were added since, let the store reconcile" };
        let wrong = |error: serde_json::Error| {
            Error::new(ErrorKind::Undecodable, format!("the stored data does not fit the program's type{hint}")).caused_by(error)
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

    pub(crate) fn template_typed(&self) -> Result<T> {
        let empty = serde_json::Value::Object(serde_json::Map::new());
        let template = self.template.as_ref().unwrap_or(&empty);
        serde_json::from_value(template.clone()).map_err(|error| {
            Error::new(ErrorKind::Invalid, "a new profile has no data: give the store a template").caused_by(error)
        })
    }

    /// Fills what the template has and the data lacks.
    pub(crate) fn reconcile(&self, data: &T) -> Result<T> {
        let Some(template) = &self.template else { return Ok(data.clone()) };
        let wrong =
            |error| Error::new(ErrorKind::Undecodable, "the data cannot be reconciled with the template").caused_by(error);
        let mut value = serde_json::to_value(data).map_err(wrong)?;
        reconcile(&mut value, template);
        serde_json::from_value(value).map_err(wrong)
    }
}

impl<T: ProfileData> Codec for TypedCodec<T> {
    fn decode(&self, json: &RawValue) -> Result<Arc<dyn Data>> {
        self.decode_typed(json).map(|data| Arc::new(data) as Arc<dyn Data>)
    }

    fn template(&self) -> Result<Arc<dyn Data>> {
        self.template_typed().map(|data| Arc::new(data) as Arc<dyn Data>)
    }
}
