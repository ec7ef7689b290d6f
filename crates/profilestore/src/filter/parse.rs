//! Reading a search. Every error names the character, and says what to write instead.

use serde_json::value::RawValue;

use super::{Comparison, FilterError, Literal, MAX_FILTER_BYTES, Path, Rule};

/// How deep parentheses and `not` may nest.
const MAX_NESTING: usize = 64;

const CONDITION: &str = "a condition, as in `/coins > 5` or `has /items/sword`";
const COMPARISONS: &str = "one of = != < <= > >=";

/// What a search says.
pub(super) fn rule(text: &str) -> Result<Rule, FilterError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    if text.len() > MAX_FILTER_BYTES {
        return Err(reader
            .wrong(format!("it is too long: bytes=`{}` limit=`{MAX_FILTER_BYTES}`", text.len())));
    }
    let rule = reader.either()?;
    match reader.rest() {
        "" => Ok(rule),
        rest if rest.starts_with(')') => Err(reader.wrong("this parenthesis closes nothing")),
        _ => Err(reader.expected("`and`, `or` or the end")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn either(&mut self) -> Result<Rule, FilterError> {
        let mut rules = vec![self.both()?];
        while self.take_word("or") {
            rules.push(self.both()?);
        }
        Ok(one_or(rules, Rule::Any))
    }

    fn both(&mut self) -> Result<Rule, FilterError> {
        let mut rules = vec![self.one()?];
        while self.take_word("and") {
            rules.push(self.one()?);
        }
        Ok(one_or(rules, Rule::All))
    }

    fn one(&mut self) -> Result<Rule, FilterError> {
        if self.depth >= MAX_NESTING {
            return Err(self.wrong(format!("it nests too deep: limit=`{MAX_NESTING}`")));
        }
        self.depth += 1;
        let rule = if self.take_word("not") {
            Rule::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let rule = self.either()?;
            if !self.take(")") {
                return Err(self.expected("`and`, `or` or `)`"));
            }
            rule
        } else if self.take_word("has") {
            Rule::Has(self.path("a path, as in `has /items/sword`")?)
        } else {
            let path = self.path(CONDITION)?;
            let comparison = self.comparison()?;
            Rule::Compare(path, comparison, self.value(comparison)?)
        };
        self.depth -= 1;
        Ok(rule)
    }

    fn path(&mut self, wanted: &str) -> Result<Path, FilterError> {
        let rest = self.rest();
        let (pointer, length) = if rest.starts_with('"') {
            let json = self.json()?;
            let pointer: String =
                serde_json::from_str(json.get()).map_err(|_| self.wrong("this is no text"))?;
            (pointer, json.get().len())
        } else if rest.starts_with('/') {
            let ends = |c: char| c.is_whitespace() || "()=!<>\"".contains(c);
            let end = rest.find(ends).unwrap_or(rest.len());
            (rest[..end].to_owned(), end)
        } else {
            return Err(self.expected(wanted));
        };
        let names = names(&pointer).ok_or_else(|| {
            self.wrong(
                "this is no JSON pointer: it begins with a slash, `~1` stands for a slash in a \
                name and `~0` for a tilde",
            )
        })?;
        self.at += length;
        Ok(Path(names))
    }

    fn comparison(&mut self) -> Result<Comparison, FilterError> {
        // Those of two characters first.
        let all = [
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let rest = self.rest();
        if rest.starts_with("==") {
            return Err(self.wrong("equality is written with one `=`"));
        }
        match all.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
            Some((sign, comparison)) => {
                self.at += sign.len();
                Ok(comparison)
            }
            None => Err(self.expected(COMPARISONS)),
        }
    }

    fn value(&mut self, comparison: Comparison) -> Result<Literal, FilterError> {
        let json = self.json()?;
        let literal =
            Literal::of(json).map_err(|_| self.wrong("this text cannot be read as JSON"))?;
        if comparison.needs_order() && !matches!(literal, Literal::Number(_) | Literal::Text(_)) {
            return Err(self.wrong("only numbers and texts have an order; use = or !="));
        }
        self.at += json.get().len();
        Ok(literal)
    }

    /// The JSON value that comes next. It stays where it is.
    fn json(&mut self) -> Result<&'a RawValue, FilterError> {
        let rest = self.rest();
        let value = match rest.chars().next() {
            Some('"' | '[' | '{') => {
                serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>().next()
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || "()=!<>\"".contains(c);
                let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
                if word.is_empty() {
                    return Err(self.expected("a value"));
                }
                Some(serde_json::from_str(word))
            }
        };
        match value {
            Some(Ok(value)) => Ok(value),
            _ => Err(self.wrong(
                "this is no JSON value: a text stands in double quotes, a number is written as \
                -1, 2.5 or 1e9",
            )),
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let behind = self.rest().strip_prefix(word);
        let found = behind
            .is_some_and(|behind| !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// What is left, from the next character that is no blank.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    fn expected(&mut self, what: &str) -> FilterError {
        let rest = self.rest();
        let end = rest.char_indices().map(|(at, _)| at).nth(20).unwrap_or(rest.len());
        let word = rest[..end].split_whitespace().next();
        let found = match word {
            None => "it ends here".to_owned(),
            Some(word) => match word.to_lowercase().as_str() {
                lower @ ("and" | "or" | "not" | "has") if lower != word => {
                    format!("found `{word}`, which is written `{lower}`")
                }
                _ => format!("found `{word}`"),
            },
        };
        self.wrong(format!("expected {what}, {found}"))
    }

    fn wrong(&self, why: impl Into<String>) -> FilterError {
        FilterError { at: self.text[..self.at].chars().count() + 1, why: why.into() }
    }
}

fn one_or(mut rules: Vec<Rule>, more: fn(Vec<Rule>) -> Rule) -> Rule {
    match rules.len() {
        1 => rules.remove(0),
        _ => more(rules),
    }
}

/// The names of a JSON pointer (RFC 6901).
pub(super) fn names(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let name = |token: &str| {
        let name = token.replace("~1", "/").replace("~0", "~");
        let tildes = |text: &str, what: &str| text.matches(what).count();
        let is_right = tildes(token, "~") == tildes(token, "~0") + tildes(token, "~1");
        is_right.then_some(name)
    };
    pointer.strip_prefix('/')?.split('/').map(name).collect()
}
