//! What was done and acknowledged, and the audit of what is stored in the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Debug)]
struct Gift {
    key: String,
    coins: u64,
    is_sent: bool,
}

/// What the runner knows from the answers alone.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Every profile that was named.
    keys: BTreeSet<String>,
    /// Items that a game made, whether or not that was stored.
    made: BTreeSet<String>,
    /// Items whose storing was acknowledged.
    kept: BTreeSet<String>,
    gifts: BTreeMap<String, Gift>,
    /// Operators' edits that were answered as done, by profile.
    edits: BTreeSet<(String, String)>,
}

/// What is stored of one profile.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) data: Value,
    /// The ids of the messages that wait.
    pub(crate) inbox: Vec<String>,
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned))
}

impl Books {
    pub(crate) fn name(&mut self, key: &str) {
        self.keys.insert(key.to_owned());
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.keys.iter().cloned().collect()
    }

    pub(crate) fn make(&mut self, item: &str) {
        self.made.insert(item.to_owned());
    }

    /// The storing of this document was acknowledged.
    pub(crate) fn keep(&mut self, data: &Value) {
        self.kept.extend(texts(&data["items"]));
    }

    pub(crate) fn send(&mut self, key: &str, id: &str, coins: u64) {
        self.name(key);
        let gift = Gift { key: key.to_owned(), coins, is_sent: false };
        self.gifts.entry(id.to_owned()).or_insert(gift);
    }

    pub(crate) fn sent(&mut self, id: &str) {
        if let Some(gift) = self.gifts.get_mut(id) {
            gift.is_sent = true;
        }
    }

    pub(crate) fn edited(&mut self, key: &str, mark: &str) {
        self.edits.insert((key.to_owned(), mark.to_owned()));
    }

    /// What is wrong with what is stored.
    pub(crate) fn audit(&self, found: &BTreeMap<String, Found>) -> Vec<String> {
        let mut wrong = Vec::new();
        self.audit_items(found, &mut wrong);
        self.audit_gifts(found, &mut wrong);
        for (key, mark) in &self.edits {
            let is_there = found.get(key).is_some_and(|it| it.data["edits"][mark] == 1);
            if !is_there {
                wrong.push(format!("an edit that was acknowledged is gone: {mark} in {key}"));
            }
        }
        wrong
    }

    fn audit_items(&self, found: &BTreeMap<String, Found>, wrong: &mut Vec<String>) {
        let mut places = BTreeMap::<String, Vec<&str>>::new();
        for (key, one) in found {
            for item in texts(&one.data["items"]) {
                places.entry(item).or_default().push(key);
            }
        }
        for (item, at) in &places {
            if at.len() > 1 {
                wrong.push(format!("an item is there {} times: {item} in {at:?}", at.len()));
            }
            if !self.made.contains(item) {
                wrong.push(format!("an item is there that no game made: {item} in {at:?}"));
            }
        }
        for item in self.kept.iter().filter(|item| !places.contains_key(*item)) {
            wrong.push(format!("an item is gone whose storing was acknowledged: {item}"));
        }
    }

    fn audit_gifts(&self, found: &BTreeMap<String, Found>, wrong: &mut Vec<String>) {
        for (key, one) in found {
            let mut coins = 0;
            for (id, times) in one.data["got"].as_object().into_iter().flatten() {
                match self.gifts.get(id) {
                    Some(gift) if gift.key == *key && *times == 1 => coins += gift.coins,
                    Some(_) => {
                        wrong
                            .push(format!("a message had its effect {times} times: {id} in {key}"));
                    }
                    None => wrong.push(format!("a message that no game sent: {id} in {key}")),
                }
                if one.inbox.contains(id) {
                    wrong.push(format!("a message had its effect and still waits: {id}"));
                }
            }
            let gifts = one.data["gifts"].as_u64().unwrap_or(0);
            if gifts != coins {
                wrong.push(format!("gifts of {gifts} coins, {coins} by the messages: {key}"));
            }
        }
        for (id, gift) in self.gifts.iter().filter(|(_, gift)| gift.is_sent) {
            let there = found.get(&gift.key);
            let has = there.is_some_and(|one| {
                one.inbox.contains(id) || one.data["got"].get(id.as_str()).is_some()
            });
            if !has {
                wrong.push(format!("a message is gone that was acknowledged: {id}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(all: &[(&str, Value, &[&str])]) -> BTreeMap<String, Found> {
        let one = |(key, data, inbox): &(&str, Value, &[&str])| {
            let inbox = inbox.iter().map(|id| (*id).to_owned()).collect();
            ((*key).to_owned(), Found { data: data.clone(), inbox })
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn the_audit_finds_what_is_lost_doubled_or_of_nobody() {
        let mut books = Books::default();
        for item in ["sword", "bow", "hat"] {
            books.make(item);
        }
        books.keep(&json!({ "items": ["sword", "bow"] }));
        books.send("a", "1:x", 5);
        books.sent("1:x");
        books.edited("a", "e1");
        let fine =
            json!({ "items": ["sword"], "got": { "1:x": 1 }, "gifts": 5, "edits": { "e1": 1 } });
        let bow = json!({ "items": ["bow"] });
        let all = found(&[("a", fine.clone(), &[]), ("b", bow, &[])]);
        assert_eq!(books.audit(&all), Vec::<String>::new());
        let all = found(&[
            (
                "a",
                json!({ "items": ["sword", "fake"], "got": { "1:x": 2 }, "gifts": 10 }),
                &["1:x"],
            ),
            ("b", json!({ "items": ["sword"] }), &[]),
        ]);
        let wrong = books.audit(&all).join("\n");
        for what in [
            "2 times: sword",
            "no game made: fake",
            "acknowledged: bow",
            "effect 2 times",
            "still waits",
            "edit that was acknowledged",
            "gifts of 10 coins",
        ] {
            assert!(wrong.contains(what), "{what}: {wrong}");
        }
        let all = found(&[("a", json!({ "items": ["sword", "bow"], "edits": { "e1": 1 } }), &[])]);
        assert_eq!(books.audit(&all), ["a message is gone that was acknowledged: 1:x"]);
    }
}
