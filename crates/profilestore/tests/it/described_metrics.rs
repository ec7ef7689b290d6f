//! Every metric that the code reports is described to the recorder and listed in
//! `docs/metrics.md`, with the same kind and the same words.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    atomics::AtomicU64, with_local_recorder,
};
use parking_lot::Mutex;

use crate::world::{World, players, settle};

/// A metric's kind and its meaning, by its name.
type Table = BTreeMap<String, (String, String)>;

#[derive(Default)]
struct Described {
    table: Mutex<Table>,
    units: Mutex<Vec<Unit>>,
}

impl Described {
    fn note(&self, kind: &str, name: &KeyName, unit: Option<Unit>, meaning: &str) {
        let entry = (kind.to_owned(), meaning.to_owned());
        let before = self.table.lock().insert(name.as_str().to_owned(), entry);
        assert!(before.is_none(), "described twice: {}", name.as_str());
        self.units.lock().extend(unit);
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("counter", &name, unit, &meaning);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("gauge", &name, unit, &meaning);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("histogram", &name, unit, &meaning);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn described() -> Table {
    let recorder = Described::default();
    with_local_recorder(&recorder, profilestore::describe_metrics);
    let table = recorder.table.into_inner();
    assert_eq!(recorder.units.into_inner().len(), table.len(), "each has a unit");
    table
}

/// What the page says.
fn listed() -> Table {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    // What only the server over HTTP reports comes last.
    let (page, _) = page.split_once("\n## The server over HTTP\n").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `profilestore_"));
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let kind = cells[2].split(',').next()?;
        // Rows of the table of alerts begin with a name too, and have no kind.
        matches!(kind, "counter" | "gauge" | "histogram")
            .then(|| (cells[1].replace('`', ""), (kind.to_owned(), cells[3].replace('`', ""))))
    })
    .collect()
}

/// The names that the code reports, with their kinds.
fn reported() -> BTreeMap<String, String> {
    fn read(folder: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("telemetry.rs")
            {
                names_in(&fs::read_to_string(&path).unwrap(), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    all
}

fn names_in(text: &str, all: &mut BTreeMap<String, String>) {
    let text: String = text.split_whitespace().collect();
    for kind in ["counter", "gauge", "histogram"] {
        let call = format!("metrics::{kind}!(");
        for (at, _) in text.match_indices(&call) {
            let name = text[at + call.len()..].strip_prefix('"');
            let name = name.expect("a metric's name is written where it is reported");
            let name = &name[..name.find('"').unwrap()];
            let before = all.insert(name.to_owned(), kind.to_owned());
            assert!(before.is_none_or(|before| before == kind), "{name} is of two kinds");
        }
    }
}

#[test]
fn every_metric_that_is_reported_is_described_and_listed() {
    let described = described();
    let kinds: BTreeMap<String, String> =
        described.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
    assert_eq!(reported(), kinds, "reported by the code, and described");
    assert_eq!(listed(), described, "docs/metrics.md, and described");
    assert!(described.contains_key("profilestore_sessions"));
}

#[test]
fn a_metric_is_found_where_it_is_reported() {
    let mut all = BTreeMap::new();
    names_in("metrics::counter!(\n    \"a_total\", \"kind\" => k).increment(1);", &mut all);
    names_in("metrics::gauge!(\"b\").set(1.0);", &mut all);
    let expected = [("a_total", "counter"), ("b", "gauge")];
    assert!(all.iter().map(|(name, kind)| (&name[..], &kind[..])).eq(expected));
}

/// Keeps what a gauge was last told.
struct Told {
    gauge: &'static str,
    value: Arc<AtomicU64>,
}

impl Told {
    /// Plays a scene in paused time, on one thread. It gets the gauge's value.
    fn of<F: Future<Output = ()>>(gauge: &'static str, scene: impl FnOnce(Value) -> F) {
        let value = Arc::<AtomicU64>::default();
        let recorder = Self { gauge, value: value.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        with_local_recorder(&recorder, || runtime.block_on(scene(Value(value))));
    }
}

/// The value of a gauge.
struct Value(Arc<AtomicU64>);

impl Value {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Recorder for Told {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == self.gauge { Gauge::from_arc(self.value.clone()) } else { Gauge::noop() }
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A process has as many game servers as it hosts. Each set the gauge to what itself had, so an
/// idle one hid what waited at all others.
#[test]
fn the_gauge_of_queued_operations_adds_up_over_the_servers_of_a_process() {
    Told::of("profilestore_queued_operations", |queued| async move {
        let world = World::new();
        let (busy, idle) =
            (world.server("a").await, world.server_on("b", world.another_way()).await);
        world.store.plan().cut_off();
        let waiting: Vec<_> =
            (0..5).map(|n| players(&busy).get(&format!("p{n}")).boxed()).collect();
        settle().await;
        players(&idle).get("q").await.unwrap();
        assert!(queued.get() >= 5.0, "{}", queued.get());
        drop(waiting);
    });
}

/// It said what the last one of them had become, so one that was well again hid the others.
#[test]
fn the_gauge_of_the_critical_state_is_1_while_any_server_of_a_process_is_critical() {
    Told::of("profilestore_critical_state", |critical| async move {
        let world = World::new();
        let (own_way, time) = (world.another_way(), Duration::from_secs(300));
        let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
        world.store.plan().cut_off();
        own_way.plan().cut_off();
        tokio::time::sleep(time).await;
        own_way.plan().heal();
        tokio::time::sleep(time).await;
        assert!(a.is_critical_state() && !b.is_critical_state());
        assert!(critical.get() > 0.0);
        world.store.plan().heal();
        tokio::time::sleep(time).await;
        assert!(!a.is_critical_state());
        assert!(critical.get() < 1.0);
    });
}
