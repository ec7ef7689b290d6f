//! The rule for values that are being written: a serialiser around the one of serde_json that lets
//! nothing pass which JSON would change or its readers could not read.
//!
//! Why not look at the JSON afterwards: serde_json writes NaN as `null`, which is then no different
//! from None. And a second pass would cost every save as much as the first. The path costs nothing
//! until there is an error: each level adds its own name to it while the error goes up.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt::Display,
};

use serde::{
    Serialize, Serializer,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::value::RawValue;

use super::{
    MAX_DEPTH, NUMBER, Problem, RAW, Unstorable, WRITTEN_BY_THE_RULE, check_name, pointer_of, text,
};

pub(super) fn encode<T: Serialize + ?Sized>(
    value: &T,
    depth: usize,
) -> Result<Box<RawValue>, Unstorable> {
    let watch = Watch {
        limit: depth,
        depth: Cell::new(0),
        problem: RefCell::default(),
        path: RefCell::default(),
    };
    serde_json::value::to_raw_value(&Checked::new(value, &watch)).map_err(|error| {
        let problem =
            watch.problem.take().unwrap_or_else(|| Problem::NoJson { reason: error.to_string() });
        let path = watch.path.take();
        problem.at(pointer_of(path.iter().rev().map(String::as_str)))
    })
}

/// What is known on the way.
struct Watch {
    limit: usize,
    depth: Cell<usize>,
    problem: RefCell<Option<Problem>>,
    /// The names that lead to an error, innermost first.
    path: RefCell<Vec<String>>,
}

impl Watch {
    #[cold]
    fn fail<E: serde::ser::Error>(&self, problem: Problem) -> E {
        *self.problem.borrow_mut() = Some(problem);
        E::custom("it cannot be stored")
    }

    #[cold]
    fn came_from(&self, name: impl Display) {
        self.path.borrow_mut().push(name.to_string());
    }

    fn enter<E: serde::ser::Error>(&self, levels: usize) -> Result<(), E> {
        let depth = self.depth.get() + levels;
        if depth > self.limit {
            return Err(self.fail(Problem::TooDeep { limit: self.limit }));
        }
        self.depth.set(depth);
        Ok(())
    }

    fn leave(&self, levels: usize) {
        self.depth.set(self.depth.get() - levels);
    }

    /// Checks a text that is JSON already.
    fn check_raw<E: serde::ser::Error>(&self, json: &str) -> Result<(), E> {
        text::check(json, self.limit - self.depth.get()).map_err(|Unstorable { path, problem }| {
            let names: Vec<_> = path
                .split('/')
                .skip(1)
                .map(|name| name.replace("~1", "/").replace("~0", "~"))
                .collect();
            self.path.borrow_mut().extend(names.into_iter().rev());
            let problem = match problem {
                Problem::TooDeep { .. } => Problem::TooDeep { limit: self.limit },
                other => other,
            };
            self.fail(problem)
        })
    }
}

/// What a text is.
#[derive(Clone, Copy)]
enum Text {
    Plain,
    Raw,
    Number,
    /// The name of a member.
    Name,
}

/// A value that is to be checked while it is written.
struct Checked<'a, T: ?Sized> {
    value: &'a T,
    watch: &'a Watch,
    text: Text,
}

impl<'a, T: ?Sized> Checked<'a, T> {
    fn new(value: &'a T, watch: &'a Watch) -> Self {
        Self { value, watch, text: Text::Plain }
    }
}

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checking { inner: serializer, watch: self.watch, text: self.text })
    }
}

/// A serialiser that checks what goes through it.
struct Checking<'a, S> {
    inner: S,
    watch: &'a Watch,
    text: Text,
}

macro_rules! pass {
    ($($method:ident($type:ty)),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Checking<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'a, S::SerializeSeq>;
    type SerializeTuple = Parts<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'a, S::SerializeTupleVariant>;
    type SerializeMap = Members<'a, S::SerializeMap>;
    type SerializeStruct = Parts<'a, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'a, S::SerializeStructVariant>;

    pass! {
        serialize_bool(bool), serialize_char(char), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_unit_struct(&'static str),
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.inner.serialize_i64(value),
            (_, Ok(value)) => self.inner.serialize_u64(value),
            _ => Err(self.watch.fail(Problem::TooLong { number: value.to_string() })),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        match u64::try_from(value) {
            Ok(value) => self.inner.serialize_u64(value),
            Err(_) => Err(self.watch.fail(Problem::TooLong { number: value.to_string() })),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            self.inner.serialize_f32(value)
        } else {
            Err(self.watch.fail(Problem::NotFinite { number: value.to_string() }))
        }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            self.inner.serialize_f64(value)
        } else {
            Err(self.watch.fail(Problem::NotFinite { number: value.to_string() }))
        }
    }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        match self.text {
            Text::Plain => {}
            Text::Raw => self.watch.check_raw(value)?,
            Text::Number => {
                text::check_number(value).map_err(|problem| self.watch.fail::<S::Error>(problem))?
            }
            Text::Name => {
                check_name(value).map_err(|problem| self.watch.fail::<S::Error>(problem))?
            }
        }
        self.inner.serialize_str(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.watch.enter::<S::Error>(1)?;
        self.watch.leave(1);
        self.inner.serialize_bytes(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Checked::new(value, self.watch))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let is_whole = self.watch.depth.get() == 0 && self.watch.limit >= MAX_DEPTH;
        if name == WRITTEN_BY_THE_RULE && is_whole {
            return self.inner.serialize_newtype_struct(name, value);
        }
        self.inner.serialize_newtype_struct(name, &Checked::new(value, self.watch))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.watch.enter::<S::Error>(1)?;
        let checked = Checked::new(value, self.watch);
        let written = self.inner.serialize_newtype_variant(name, index, variant, &checked);
        self.watch.leave(1);
        written.inspect_err(|_| self.watch.came_from(variant))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Parts::new(self.watch, 1, self.inner.serialize_seq(len)?)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Parts::new(self.watch, 1, self.inner.serialize_tuple(len)?)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Parts::new(self.watch, 1, self.inner.serialize_tuple_struct(name, len)?)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let parts = Parts::new(
            self.watch,
            2,
            self.inner.serialize_tuple_variant(name, index, variant, len)?,
        )?;
        Ok(Parts { variant: Some(variant), ..parts })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.watch.enter::<S::Error>(1)?;
        // A caller that knows how many members there are has them in a map, where none is twice.
        // `#[serde(flatten)]` does not know.
        let names = len.is_none().then(BTreeSet::new);
        Ok(Members {
            inner: self.inner.serialize_map(len)?,
            watch: self.watch,
            names,
            key: String::new(),
        })
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let (levels, text) = match name {
            RAW => (0, Text::Raw),
            NUMBER => (0, Text::Number),
            _ => (1, Text::Plain),
        };
        let parts = Parts::new(self.watch, levels, self.inner.serialize_struct(name, len)?)?;
        Ok(Parts { text, ..parts })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let parts = Parts::new(
            self.watch,
            2,
            self.inner.serialize_struct_variant(name, index, variant, len)?,
        )?;
        Ok(Parts { variant: Some(variant), ..parts })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A list, or an object whose names the type itself gives.
struct Parts<'a, C> {
    inner: C,
    watch: &'a Watch,
    levels: usize,
    index: usize,
    text: Text,
    variant: Option<&'static str>,
}

impl<'a, C> Parts<'a, C> {
    fn new<E: serde::ser::Error>(watch: &'a Watch, levels: usize, inner: C) -> Result<Self, E> {
        watch.enter(levels)?;
        Ok(Self { inner, watch, levels, index: 0, text: Text::Plain, variant: None })
    }

    #[cold]
    fn came_from(&self, name: impl Display) {
        if matches!(self.text, Text::Plain) {
            self.watch.came_from(name);
            if let Some(variant) = self.variant {
                self.watch.came_from(variant);
            }
        }
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {$(
        impl<C: $trait> $trait for Parts<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let checked = Checked::new(value, self.watch);
                self.inner.$method(&checked).inspect_err(|_| self.came_from(self.index))?;
                self.index += 1;
                Ok(())
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.watch.leave(self.levels);
                self.inner.end()
            }
        }
    )*};
}
elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl<C: $trait> $trait for Parts<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                let checked = Checked { value, watch: self.watch, text: self.text };
                self.inner.serialize_field(key, &checked).inspect_err(|_| self.came_from(key))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.watch.leave(self.levels);
                self.inner.end()
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

/// An object whose names are values themselves.
struct Members<'a, C> {
    inner: C,
    watch: &'a Watch,
    /// The names so far, where one could come twice.
    names: Option<BTreeSet<String>>,
    /// The name that was written last, if name and value come apart.
    key: String,
}

impl<C: SerializeMap> Members<'_, C> {
    fn note<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        let Some(names) = &mut self.names else { return Ok(()) };
        let name = name_of(key);
        if names.contains(&name) {
            self.watch.came_from(&name);
            return Err(self.watch.fail(Problem::Twice));
        }
        names.insert(name);
        Ok(())
    }
}

/// What a key is written as.
fn name_of<T: Serialize + ?Sized>(key: &T) -> String {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

impl<C: SerializeMap> SerializeMap for Members<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.note(key)?;
        self.key = name_of(key);
        let checked = Checked { value: key, watch: self.watch, text: Text::Name };
        self.inner.serialize_key(&checked).inspect_err(|_| self.watch.came_from(&self.key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let checked = Checked::new(value, self.watch);
        self.inner.serialize_value(&checked).inspect_err(|_| self.watch.came_from(&self.key))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.note(key)?;
        let name = Checked { value: key, watch: self.watch, text: Text::Name };
        let checked = Checked::new(value, self.watch);
        self.inner
            .serialize_entry(&name, &checked)
            .inspect_err(|_| self.watch.came_from(name_of(key)))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.watch.leave(1);
        self.inner.end()
    }
}
