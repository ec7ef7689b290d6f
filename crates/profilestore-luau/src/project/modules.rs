//! Data files as modules: the Luau text that returns what they hold.

use serde_json::Value;

pub(super) fn of_json(value: &Value) -> String {
    let mut text = "return ".to_owned();
    write(value, &mut text);
    text
}

pub(super) fn of_toml(table: &toml::Table) -> String {
    of_json(&json_of(&toml::Value::Table(table.clone())))
}

/// TOML's times become texts, as Rojo has them.
fn json_of(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect()
        }
    }
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(string) => write_text(string, text),
        Value::Array(list) => {
            text.push('{');
            for value in list {
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Object(object) => {
            text.push('{');
            for (key, value) in object {
                text.push('[');
                write_text(key, text);
                text.push_str("]=");
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
    }
}

fn write_text(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            c => text.push(c),
        }
    }
    text.push('"');
}
