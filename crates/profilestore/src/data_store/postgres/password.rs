//! The password, where PostgreSQL's own programs look for it too: `PGPASSWORD`, and the password
//! file.

use std::{env, path::PathBuf};

use tokio_postgres::{Config, config::Host};

/// The password for a host, if one is kept for it.
pub(super) fn find(config: &Config) -> Option<String> {
    if let Ok(password) = env::var("PGPASSWORD") {
        return Some(password);
    }
    let path = match env::var_os("PGPASSFILE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME")?).join(".pgpass"),
    };
    let text = std::fs::read_to_string(&path).ok()?;
    if is_open_to_others(&path) {
        tracing::warn!(path = %path.display(), "the password file is not used, since others may read it; chmod 600 it");
        return None;
    }
    let host = match config.get_hosts().first()? {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(_) => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    in_file(&text, [&host, &port, config.get_dbname()?, config.get_user()?])
}

#[cfg(unix)]
fn is_open_to_others(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &std::path::Path) -> bool {
    false
}

/// The first line that fits host, port, database and user.
fn in_file(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let password = (fields.len() == 5).then(|| fields.pop()).flatten()?;
        fields
            .iter()
            .zip(wanted)
            .all(|(field, wanted)| field == "*" || field == wanted)
            .then_some(password)
    })
}

/// Fields between colons; a backslash takes what follows as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == ':' && fields.len() < 5 {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let file = "# comment\nother:5432:game:me:no\n*:5432:game:me:a\\:b\\\\c\n*:*:*:*:last";
        assert_eq!(in_file(file, ["db", "5432", "game", "me"]).as_deref(), Some("a:b\\c"));
        assert_eq!(in_file(file, ["other", "5432", "game", "me"]).as_deref(), Some("no"));
        assert_eq!(in_file(file, ["db", "1", "game", "me"]).as_deref(), Some("last"));
        assert_eq!(in_file("h:1:d:u", ["h", "1", "d", "u"]), None);
    }
}
