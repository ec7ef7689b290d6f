//! `serve`: settings, the store, the first key, and listening until a signal comes.

use std::{fs, path::Path};

use profilestore::{
    Attribution, GameServer, Settings,
    env::Env,
    hosting::{Host, HostParts},
    stop_signal,
};
use profilestore_server::{
    App as HttpApp, Config, Keys, Parts, Server,
    config::Options,
    keys::{KeyRecord, NewKey, Scope},
    record_metrics,
};
use serde::Serialize;

use super::Serve;
use crate::{
    app::App,
    hints::Address,
    operate::failure,
    output::{Failure, Status, json_document, note, say},
    place::{Place, Store},
    serve::keys::key_failure,
};

/// What `--json` prints once it listens.
#[derive(Serialize)]
struct Listening<'a> {
    url: &'a str,
    store: String,
    /// The key that was made, at the first start.
    key: Option<&'a str>,
    /// Where the first member is made, while there is none.
    set_up: Option<&'a str>,
}

/// All that the settings name.
struct Settled {
    config: Config,
    app: App,
}

impl Serve {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let check = self.check;
        let settled = self.settle(app);
        if check {
            return checked(settled).await;
        }
        let Settled { config, app } = settled.map_err(|wrong| Failure::Usage(wrong.join("; ")))?;
        let store = app.place.open_or_create().await?;
        store.for_writing()?;
        let makes_key = makes_first_key(&config, &store).await?;
        let listener =
            Server::bind(&config).await.map_err(|error| Failure::Work(error.to_string()))?;
        let messenger = match &app.messenger {
            // A server outlives an outage of NATS.
            Some(address) => address.nats()?.connect_in_background().await.map_err(failure)?,
            None => store.messenger()?,
        };
        let metrics = record_metrics();
        let server = GameServer::builder(store.any())
            .messenger(messenger.clone())
            .job_id(&config.job)
            .start()
            .await
            .map_err(failure)?;
        let host = Host::new(HostParts {
            store: store.any(),
            messenger,
            settings: Settings::default(),
            env: Env::system(),
        })
        .map_err(failure)?;
        let parts = Parts {
            store: store.any(),
            server: server.clone(),
            host: Some(host),
            env: Env::system(),
            metrics,
        };
        let http = HttpApp::new(parts, &config);
        let router = http.router();
        let url = config.url(listener.address()?);
        let mut stop = Box::pin(stop_signal());
        // It listens to signals from its first poll on, so before others know of this process.
        let stopped = tokio::select! {
            biased;
            stopped = &mut stop => Some(stopped),
            () = std::future::ready(()) => None,
        };
        let token = http.open_setup().await.map_err(failure)?;
        let link = token.map(|token| format!("{url}/#/setup?token={token}"));
        // When nothing can fail any more: it is shown this once.
        let first = if makes_key { Some(first_key(&store).await?) } else { None };
        tell(&app, &url, first.as_deref(), link.as_deref())?;
        let finished = listener.serve(router, async {
            let stopped = match stopped {
                Some(stopped) => stopped,
                None => stop.await,
            };
            if let Err(error) = stopped {
                note(format_args!("signals cannot be listened to, so the server stops: {error}"));
            }
            http.send_away().await;
        });
        let finished = finished.await;
        let report = server.shutdown().await;
        store.still_there()?;
        match (finished, report.is_complete()) {
            (true, true) => Ok(Status::Fine),
            (false, _) => {
                note(format_args!("some requests were not finished in time and were cut off"));
                Ok(Status::Problems)
            }
            (_, false) => Ok(Status::Problems),
        }
    }

    /// What counts: the command line, the environment, the file, in this order.
    fn settle(self, app: &App) -> Result<Settled, Vec<String>> {
        let file = match &app.config {
            None => Options::default(),
            Some(path) => {
                let wrong = |why: String| vec![format!("{why}: file=`{}`", path.display())];
                let text = fs::read_to_string(path)
                    .map_err(|error| wrong(format!("the settings cannot be read: {error}")))?;
                Options::parse(&text).map_err(wrong)?
            }
        };
        let flags = Options {
            listen: self.listen,
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            trust_proxy: self.trust_proxy,
            job: self.job,
            max_connections: self.max_connections,
            request_seconds: self.request_seconds,
            stop_seconds: self.stop_seconds,
            requests_per_second: self.requests_per_second,
            public_url: self.public_url,
            ..Options::default()
        };
        let options = flags.or(file);
        let (store, messenger) = (options.store.clone(), options.messenger.clone());
        let mut wrong = Vec::new();
        let place = match store.filter(|_| app.named.is_none()) {
            None => app.place.clone(),
            Some(named) => named.parse::<Place>().unwrap_or_else(|why| {
                wrong.push(format!("store: {why}"));
                app.place.clone()
            }),
        };
        let from_file = messenger.and_then(|address| address.parse::<Address>().ok());
        let messenger = app.messenger.clone().or(from_file);
        match options.settle() {
            Ok(config) if wrong.is_empty() => {
                let app = App { place, messenger, ..app.clone() };
                Ok(Settled { config, app })
            }
            Ok(_) => Err(wrong),
            Err(more) => Err([wrong, more].concat()),
        }
    }
}

/// Says what is wrong with the settings, and with what they name.
async fn checked(settled: Result<Settled, Vec<String>>) -> Result<Status, Failure> {
    let mut wrong = Vec::new();
    match settled {
        Err(problems) => wrong = problems,
        Ok(Settled { config, app }) => {
            say(format_args!("listen  {}", config.listen))?;
            if let Some(url) = &config.public_url {
                say(format_args!("public  {url}"))?;
            }
            say(format_args!("store   {}", app.place))?;
            say(format_args!("limit   {} requests a second a key", config.requests_per_second))?;
            if let Some(tls) = &config.tls
                && let Err(error) = tls.load()
            {
                wrong.push(error.to_string());
            }
            if let Some(Err(error)) = app.messenger.as_ref().map(Address::nats) {
                wrong.push(error.to_string());
            }
            check_store(&config, &app.place, &mut wrong).await?;
        }
    }
    for problem in &wrong {
        say(format_args!("wrong   {problem}"))?;
    }
    Ok(if wrong.is_empty() { Status::Fine } else { Status::Problems })
}

/// The same of the store, and of the keys in it.
async fn check_store(
    config: &Config,
    place: &Place,
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    let file = match place {
        Place::Sqlite(path) if !path.exists() => Some(&**path),
        _ => None,
    };
    if let Some(folder) = file.and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        wrong.push(format!("there is no such folder: folder=`{}`", folder.display()));
        return Ok(());
    }
    match place.open().await {
        Ok(store) => match store.for_writing().and(usable_keys(&store).await) {
            Ok(keys) => {
                say(format_args!("keys    {}", keys.len()))?;
                if keys.is_empty() && !config.is_local() {
                    wrong.push(no_key().to_string());
                }
            }
            Err(error) => wrong.push(error.to_string()),
        },
        Err(_) if file.is_some() && config.is_local() => {
            say(format_args!("keys    the first start makes store and key"))?;
        }
        Err(error) => wrong.push(error.to_string()),
    }
    Ok(())
}

async fn usable_keys(store: &Store) -> Result<Vec<KeyRecord>, Failure> {
    let env = Env::system();
    let now_ms = env.unix_ms();
    let mut keys = Keys::new(store.any(), env).list().await.map_err(key_failure)?;
    keys.retain(|key| key.refusal(now_ms).is_none());
    Ok(keys)
}

fn no_key() -> Failure {
    Failure::Usage(
        "beyond this machine the server makes no key by itself; make one first: profilestore keys \
         add NAME --scope admin"
            .into(),
    )
}

/// Whether there is no valid key, so that one is to be made. Fails where others could use the
/// moment.
async fn makes_first_key(config: &Config, store: &Store) -> Result<bool, Failure> {
    let is_needed = usable_keys(store).await?.is_empty();
    if is_needed && !config.is_local() {
        return Err(no_key());
    }
    Ok(is_needed)
}

async fn first_key(store: &Store) -> Result<String, Failure> {
    let new =
        NewKey { name: "first".to_owned(), scopes: [Scope::Admin].into(), ..NewKey::default() };
    let by = Attribution::new("serve").because("the first start");
    let added = Keys::new(store.any(), Env::system()).add(new, &by).await;
    let (_, key) = added.map_err(key_failure)?;
    Ok(key)
}

fn tell(app: &App, url: &str, key: Option<&str>, link: Option<&str>) -> Result<(), Failure> {
    if app.json {
        return json_document(&Listening { url, store: app.place.to_string(), key, set_up: link });
    }
    say(format_args!("{} is served at {url}", app.place))?;
    if let Some(link) = link {
        say(format_args!(""))?;
        say(format_args!("To log in to the console, make the first member with this link."))?;
        say(format_args!("It works once:"))?;
        say(format_args!("{link}"))?;
    }
    let Some(key) = key else { return Ok(()) };
    let shown = format!(
        "
The store had no key yet, so one was made, for everything. It is shown this
once; `profilestore keys add` makes others. Try it in another terminal:

  KEY={key}
  URL={url}/v1/stores/PlayerData/profiles/user-1
  curl -X PUT $URL -H \"Authorization: Bearer $KEY\" -H 'If-None-Match: *' \\
    -H 'Content-Type: application/json' -d '{{\"data\":{{\"coins\":10}}}}'
  curl $URL -H \"Authorization: Bearer $KEY\"

{url}/docs says what else there is. Ctrl-C ends the server."
    );
    shown.lines().try_for_each(|line| say(format_args!("{line}")))
}
