//! What operators see and do in a script, over HTTP.

use std::time::Duration;

use profilestore::env::Env;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    driver::PATIENCE,
    stage::{MadeKey, Stage, fits, text},
};

impl Stage {
    pub(super) async fn stored(&mut self, step: &Value) -> Result<(), String> {
        let key = text(step, "key", "a");
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.world.call("GET", &self.world.path(key, ""), &[], None).await?;
            if fits(&found.body, &json!({ "data": step["data"] })) {
                return Ok(());
            }
            if Instant::now() > until || step["now"] == true {
                return Err(format!("stored is {}, not {}", found.body["data"], step["data"]));
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    pub(super) async fn held(&mut self, step: &Value) -> Result<(), String> {
        let path = self.world.path(text(step, "key", "a"), "/session");
        let expected = step["is"].as_bool().unwrap_or(false);
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.world.call("GET", &path, &[], None).await?;
            if found.body["held"].is_null() != expected {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("held never came to {expected}: {}", found.body));
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    pub(super) async fn inbox(&mut self, step: &Value) -> Result<(), String> {
        let path = self.world.path(text(step, "key", "a"), "/messages");
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.world.call("GET", &path, &[], None).await?;
            let count = found.body["items"].as_array().map(Vec::len);
            if count.map(|count| count as u64) == step["is"].as_u64() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{count:?} messages wait, not {}", step["is"]));
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    pub(super) async fn http(&mut self, step: &Value) -> Result<(), String> {
        let path = self.world.path(text(step, "key", "a"), text(step, "path", ""));
        let body = step.get("body").map(Value::to_string);
        let id = Env::system().uuid().to_string();
        let headers = [
            ("Content-Type", text(step, "type", "application/json")),
            ("Idempotency-Key", &id),
            ("If-None-Match", "*"),
        ];
        let is_put = step["method"] == "PUT";
        let headers = if is_put { &headers[..] } else { &headers[..2] };
        let method = text(step, "method", "GET");
        let answer = self.world.call(method, &path, headers, body.as_deref()).await?;
        let status = step["status"].as_u64().unwrap_or(200);
        if u64::from(answer.status) != status {
            return Err(format!("{method} {path}: {} {}", answer.status, answer.body));
        }
        match step.get("gives") {
            Some(expected) if !fits(&answer.body, expected) => {
                Err(format!("{method} {path} gives {}, not {expected}", answer.body))
            }
            _ => Ok(()),
        }
    }

    /// Makes a key that game servers may connect with.
    pub(super) async fn make_key(&mut self, step: &Value) -> Result<(), String> {
        let name = text(step, "name", "key").to_owned();
        let body = json!({ "name": name, "scopes": ["sessions:hold"] }).to_string();
        let headers = [("Content-Type", "application/json")];
        let made = self.world.call("POST", "/v1/keys", &headers, Some(&body)).await?;
        let (secret, id) = (made.body["key"].as_str(), made.body["record"]["id"].as_str());
        let (Some(secret), Some(id)) = (secret, id) else {
            return Err(format!("no key was made: {} {}", made.status, made.body));
        };
        self.keys.insert(name, MadeKey { id: id.to_owned(), secret: secret.to_owned() });
        Ok(())
    }

    pub(super) async fn revoke(&mut self, step: &Value) -> Result<(), String> {
        let name = text(step, "name", "key");
        let key = self.keys.get(name).ok_or(format!("there is no key {name}"))?;
        let path = format!("/v1/keys/{}", key.id);
        let answer = self.world.call("DELETE", &path, &[], None).await?;
        if answer.status != 200 {
            return Err(format!("the key was not revoked: {} {}", answer.status, answer.body));
        }
        Ok(())
    }

    /// An edit with a mark that the audit looks for. `undoes`: the paths that its undo puts back.
    pub(super) async fn edit(&mut self, step: &Value) -> Result<(), String> {
        let (key, mark) = (text(step, "key", "a").to_owned(), text(step, "mark", "m").to_owned());
        let mut patch = vec![json!({ "op": "add", "path": format!("/edits/{mark}"), "value": 1 })];
        patch.extend(step["patch"].as_array().into_iter().flatten().cloned());
        let id = Env::system().uuid().to_string();
        let headers = [("Content-Type", "application/json-patch+json"), ("Idempotency-Key", &id)];
        let (path, body) = (self.world.path(&key, "/edits"), Value::Array(patch).to_string());
        let until = Instant::now() + PATIENCE;
        let mut answer = self.world.call("POST", &path, &headers, Some(&body)).await?;
        // The holder has not answered yet. The same operation again asks what became of it.
        while answer.status == 202 && step["status"] != "any" && Instant::now() < until {
            answer = self.world.call("POST", &path, &headers, Some(&body)).await?;
        }
        if answer.status == 200 {
            self.books.edited(&key, &mark);
        }
        let status = step["status"].as_u64().unwrap_or(200);
        if step["status"] != "any" && u64::from(answer.status) != status {
            return Err(format!("the edit: {} {}", answer.status, answer.body));
        }
        let undo = &answer.body["details"]["undo"];
        let undone: Vec<_> =
            undo["ops"].as_array().into_iter().flatten().map(|step| step["path"].clone()).collect();
        match &step["undoes"] {
            Value::Array(paths) if undone != *paths => {
                Err(format!("the edit is not stored alone, its undo is {undo}"))
            }
            _ => Ok(()),
        }
    }
}
