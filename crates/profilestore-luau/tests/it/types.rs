//! The type definitions: that they parse, and name what is there.

use crate::check;

/// The members of a type: its lines of the form `Name: ...`.
fn members(source: &str, of: &str) -> Vec<String> {
    let begin =
        source.find(&format!("export type {of} = {{")).unwrap_or_else(|| panic!("{of} is defined"));
    let body = &source[begin..begin + source[begin..].find("\n}").expect("it ends")];
    let name = |line: &str| {
        let (name, _) = line.strip_prefix('\t')?.split_once(": ")?;
        name.chars().all(char::is_alphanumeric).then(|| name.to_owned())
    };
    body.lines().filter_map(name).collect()
}

/// Looks at every member of some values.
fn have(source: &str, prelude: &str, values: &[(&str, &str)]) {
    // It parses.
    check(source);
    let mut script = prelude.to_owned();
    let mut count = 0;
    for (of, value) in values {
        for member in members(source, of) {
            count += 1;
            script.push_str(&format!(" assert({value}.{member} ~= nil, '{value}.{member}')"));
        }
    }
    assert!(count > 60, "{count}");
    check(&script);
}

#[test]
fn what_the_types_of_profile_store_name_is_there() {
    have(
        include_str!("../../types/ProfileStore.luau"),
        "local module = require('ProfileStore')
        local store = module.New('S', {})
        local live, query = store:StartSessionAsync('p'), store:VersionQuery('p')
        local view = store:GetAsync('p')",
        &[
            ("Module", "module"),
            ("Signal<T...>", "module.OnError"),
            ("Stored<D>", "store"),
            ("Stored<D>", "store.Mock"),
            ("Profile<D>", "live"),
            ("Profile<D>", "view"),
            ("KeyInfo", "live.KeyInfo"),
            ("VersionQuery<D>", "query"),
        ],
    );
}

#[test]
fn what_the_types_of_profile_service_name_is_there() {
    have(
        include_str!("../../types/ProfileService.luau"),
        "local module = require('ProfileService')
        local store = module.GetProfileStore('S', {})
        local live, query = store:LoadProfileAsync('p'), store:ProfileVersionQuery('p')
        local view = store:ViewProfileAsync('p')",
        &[
            ("Module", "module"),
            ("Signal<T...>", "module.IssueSignal"),
            ("Stored<D>", "store"),
            ("Stored<D>", "store.Mock"),
            ("Profile<D>", "live"),
            ("Profile<D>", "view"),
            ("MetaData", "live.MetaData"),
            ("GlobalUpdates", "live.GlobalUpdates"),
            ("GlobalUpdates", "view.GlobalUpdates"),
            ("KeyInfo", "live.KeyInfo"),
            ("ProfileVersionQuery<D>", "query"),
        ],
    );
}
