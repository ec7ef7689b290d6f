//! An operator's writes on the condition that the profile is still what was read.

use serde_json::value::RawValue;

use crate::{
    api::operator::Operator,
    edit::Edit,
    engine::conditional::{Expected, NewContent, Written},
    error::Result,
    key::ProfileKey,
};

impl Operator {
    /// Writes a profile's data, or makes a profile with it, if the profile is what is expected. The
    /// users, tags and metadata of a profile that is there stay. A program's types
    /// ([`Operator::through`]) are not asked. Waits until it is durable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Changed`](crate::ErrorKind::Changed) when the profile is something else than
    /// expected, [`ErrorKind::Held`](crate::ErrorKind::Held) while a session holds it,
    /// [`ErrorKind::Foreign`](crate::ErrorKind::Foreign),
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge), and
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for data that cannot be stored. After
    /// [`ErrorKind::Unknown`](crate::ErrorKind::Unknown) the same call does it once: it is refused
    /// as changed if it has been done.
    pub fn put(
        &self,
        key: &ProfileKey,
        expected: Expected,
        data: &RawValue,
    ) -> impl Future<Output = Result<Written>> + Send + 'static + use<> {
        self.write_if(key, expected, NewContent::Data(data.to_owned()))
    }

    /// Applies an edit to a profile that no session holds, if it is what is expected. Errors are
    /// those of [`Operator::put`], and
    /// [`ErrorKind::EditRefused`](crate::ErrorKind::EditRefused) when the edit does not fit the
    /// data.
    pub fn edit_if(
        &self,
        key: &ProfileKey,
        expected: Expected,
        edit: &Edit,
    ) -> impl Future<Output = Result<Written>> + Send + 'static + use<> {
        self.write_if(key, expected, NewContent::Edited(edit.clone()))
    }

    /// Removes a profile, as [`Operator::remove`] does, if it is what is expected.
    pub fn remove_if(
        &self,
        key: &ProfileKey,
        expected: Expected,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let removed =
            self.allowed(key).map(|engine| engine.remove_if(key, expected, self.by.clone()));
        async move { removed?.await }
    }

    fn write_if(
        &self,
        key: &ProfileKey,
        expected: Expected,
        content: NewContent,
    ) -> impl Future<Output = Result<Written>> + Send + 'static + use<> {
        let written = self
            .allowed(key)
            .map(|engine| engine.write_if(key, expected, content, self.by.clone()));
        async move { written?.await }
    }
}
