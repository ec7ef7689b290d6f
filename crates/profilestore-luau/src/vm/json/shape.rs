//! The names of an object, sorted and written: the next object of a list mostly has the same ones.

use super::write::write_name;

/// The names of the object that was written last at some depth.
#[derive(Default)]
pub(super) struct Shape {
    /// An object was written. Of one alone nothing is kept.
    is_second: bool,
    /// Its names, in the order in which the table gave them.
    names: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// Which of them comes when, and where what is written before its value ends.
    members: Vec<(usize, usize)>,
    /// `{"a":`, `,"b":` and so on, in order.
    heads: Vec<u8>,
}

impl Shape {
    /// Whether there was an object, whose names are kept.
    pub(super) fn is_known(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether this can be used for an object with these names, which end there. Those of the
    /// second object on are kept, but for names that cannot be written, and for none.
    pub(super) fn is_for(
        &mut self,
        names: &[u8],
        ends: impl Iterator<Item = usize> + Clone,
    ) -> bool {
        if self.names == names && ends.clone().eq(self.ends.iter().copied()) {
            return !self.members.is_empty();
        }
        if !self.is_second {
            self.is_second = true;
            return false;
        }
        self.names.clear();
        self.names.extend_from_slice(names);
        self.ends.clear();
        self.ends.extend(ends);
        self.heads.clear();
        self.members.clear();
        self.write().is_some()
    }

    /// Sorts and writes the names. Without a member when one of them cannot be written.
    fn write(&mut self) -> Option<()> {
        let Self { names, ends, members, heads, .. } = self;
        let name = |at: usize| &names[if at == 0 { 0 } else { ends[at - 1] }..ends[at]];
        members.extend((0..ends.len()).map(|at| (at, 0)));
        members.sort_unstable_by(|(a, _), (b, _)| name(*a).cmp(name(*b)));
        for (place, (at, end)) in members.iter_mut().enumerate() {
            heads.push(if place == 0 { b'{' } else { b',' });
            if write_name(heads, name(*at)).is_err() {
                members.clear();
                return None;
            }
            heads.push(b':');
            *end = heads.len();
        }
        (!members.is_empty()).then_some(())
    }

    /// Which member comes when, and what is written before its value.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut from = 0;
        self.members.iter().map(move |(at, end)| {
            let head = &self.heads[from..*end];
            from = *end;
            (*at, head)
        })
    }
}

#[cfg(test)]
mod tests {
    use mlua::{Lua, Value};
    use profilestore::storable::DATA;

    use crate::vm::json::encode;

    fn json(source: &str) -> Result<String, String> {
        let lua = Lua::new();
        let value: Value = lua.load(source).eval().expect("a value");
        encode(&lua, "Data", &value, DATA).map_err(|error| error.to_string())
    }

    #[test]
    fn objects_of_a_list_are_written_by_their_own_names() {
        let of = |source: &str| json(source).expect("storable");
        assert_eq!(
            of("return { { b = 1, a = 2 }, { b = 3, a = 4 }, { a = 5, b = 6 }, { c = 7 },
                { b = 8, a = 9 }, {}, { ab = 1 }, { a = 1, b = 2, c = 3 }, { b = 4, a = 5 } }"),
            concat!(
                r#"[{"a":2,"b":1},{"a":4,"b":3},{"a":5,"b":6},{"c":7},{"a":9,"b":8},[],"#,
                r#"{"ab":1},{"a":1,"b":2,"c":3},{"a":5,"b":4}]"#
            )
        );
        // The same bytes, as other names.
        assert_eq!(
            of("return { { x = 0 }, { ab = 1, c = 2 }, { a = 3, bc = 4 }, { abc = 5 } }"),
            r#"[{"x":0},{"ab":1,"c":2},{"a":3,"bc":4},{"abc":5}]"#
        );
        assert_eq!(
            of(r#"local list = {}
                for n = 1, 4 do list[n] = { ['q"'] = { z = n, y = { n } }, ['é'] = { k = n } } end
                return list"#),
            concat!(
                r#"[{"q\"":{"y":[1],"z":1},"é":{"k":1}},{"q\"":{"y":[2],"z":2},"é":{"k":2}},"#,
                r#"{"q\"":{"y":[3],"z":3},"é":{"k":3}},{"q\"":{"y":[4],"z":4},"é":{"k":4}}]"#
            )
        );
    }

    #[test]
    fn what_follows_objects_may_be_a_list_or_nothing_that_can_be_stored() {
        assert_eq!(
            json(
                "return { { a = 1 }, { a = 2 }, { 1, 2 }, {}, { a = 3 }, { { 4 } },
                    { [2] = 6, [1] = 5 } }"
            ),
            Ok(r#"[{"a":1},{"a":2},[1,2],[],{"a":3},[[4]],[5,6]]"#.to_owned())
        );
        let third = |table: &str| json(&format!("return {{ {{ a = 1 }}, {{ a = 2 }}, {table} }}"));
        assert_eq!(
            third("{ 7, a = 3 }"),
            Err("Data[3]: a table with both numbers and texts as keys cannot be stored".to_owned())
        );
        let gaps = third("{ [1] = 1, [3] = 3 }").expect_err("a list with gaps");
        assert!(gaps.starts_with("Data[3]: a list with gaps"), "{gaps}");
    }

    #[test]
    fn what_cannot_be_stored_is_named_by_its_place_also_in_the_objects_that_follow() {
        let in_third = |member: &str| {
            json(&format!(
                "return {{ {{ b = 1 }}, {{ b = 2 }}, {{ b = 3, {member} }}, {{ b = 4 }} }}"
            ))
            .expect_err("it cannot be stored")
        };
        assert_eq!(in_third("a = print"), "Data[3].a: a function cannot be stored");
        let bad_name = in_third("['\\255'] = 1");
        assert!(bad_name.starts_with("Data[3][\"\u{fffd}\"]: a text that is no valid UTF-8"));
        // What comes first in the order of names is told.
        assert_eq!(in_third("a = print, ['\\255'] = 1"), "Data[3].a: a function cannot be stored");
        let by_all =
            json("local list = {} for n = 1, 3 do list[n] = { ['\\255'] = n } end return list");
        assert!(by_all.expect_err("no text").starts_with("Data[1]["));
    }
}
