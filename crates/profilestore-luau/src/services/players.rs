//! Who plays: when players join, hop between servers, buy and leave, and when servers crash. A plan
//! is read from a short text, and carried out while the game runs.

use std::{str::FromStr, sync::Arc, time::Duration};

use profilestore::env::Rng;
use tokio::time::{Instant, sleep_until};

use super::world::{Join, World};

/// The most players that a plan may name.
const MAX_PLAYERS: i64 = 1_000_000;

/// What players do in a game.
///
/// Parts are separated by `;`. A part is `WHO:ACTION@WHEN,ACTION@WHEN...`, or a number alone.
///
/// * WHO is a user id, or a range of them: `7`, `1-20`. Or it is `server2`: then the only action is
///   `crash`.
/// * ACTION is `join`, `hop`, `leave` or `buy=PRODUCT`. An action that happens on a certain server
///   has `/SERVER` behind its time: a number that counts from 1, or `*` for any. Without it, `join`
///   means server 1, `hop` another server at random, and `leave` all servers that the player is on.
///   A player who hops leaves and arrives in the same moment. One who joins a second server
///   without leaving the first is on both, as a player whose old connection is not noticed to be
///   gone.
/// * WHEN is a time since the game began, `90s` or `1.5m` (`ms`, `s`, `m`, `h`; seconds without);
///   or a range, of which the seed chooses a moment: `0-30s`; or `every20s`, `every20-60s`: again
///   and again, until the player's last `leave`.
/// * A number N alone stands for `1-N:join@0-10s/*,hop@every20-60s`.
///
/// So `1:join@0s,hop@60s/2,buy=1234@90s,leave@120s;2-20:join@0-30s/*` is a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
struct Part {
    who: Who,
    actions: Vec<Timed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Players(i64, i64),
    Server(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Timed {
    action: Action,
    from: Duration,
    to: Duration,
    every: bool,
    on: Option<On>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Join,
    Hop,
    Leave,
    Buy(i64),
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// Counts from 0.
    Server(usize),
    Any,
}

/// A plan that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: in=`{given}`")]
pub struct PlanError {
    what: String,
    given: String,
}

fn wrong<T>(what: impl Into<String>, given: &str) -> Result<T, PlanError> {
    Err(PlanError { what: what.into(), given: given.into() })
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let parts = text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(part)
            .collect::<Result<_, _>>()?;
        Ok(Self { parts })
    }
}

fn part(text: &str) -> Result<Part, PlanError> {
    if let Ok(count) = text.parse::<i64>() {
        if !(1..=MAX_PLAYERS).contains(&count) {
            return wrong(format!("there may be 1 to {MAX_PLAYERS} players"), text);
        }
        return part(&format!("1-{count}:join@0-10s/*,hop@every20-60s"));
    }
    let Some((who, actions)) = text.split_once(':') else {
        return wrong("a part of a plan is WHO:ACTION@WHEN,... or a number of players", text);
    };
    let who = self::who(who.trim())?;
    let actions =
        actions.split(',').map(|action| timed(action.trim(), who)).collect::<Result<_, _>>()?;
    Ok(Part { who, actions })
}

fn who(text: &str) -> Result<Who, PlanError> {
    if let Some(server) = text.strip_prefix("server") {
        return Ok(Who::Server(server_number(server)?));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<i64>(), last.trim().parse::<i64>()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last && last - first < MAX_PLAYERS => {
            Ok(Who::Players(first, last))
        }
        _ => wrong("a player is a user id above 0, or a range such as 1-20", text),
    }
}

fn server_number(text: &str) -> Result<usize, PlanError> {
    match text.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number - 1),
        _ => wrong("servers are counted from 1", text),
    }
}

fn timed(text: &str, who: Who) -> Result<Timed, PlanError> {
    let Some((name, rest)) = text.split_once('@') else {
        return wrong("an action is ACTION@WHEN", text);
    };
    let (when, on) = match rest.split_once('/') {
        Some((when, "*")) => (when, Some(On::Any)),
        Some((when, server)) => (when, Some(On::Server(server_number(server)?))),
        None => (rest, None),
    };
    let action = match (name.trim(), who) {
        ("crash", Who::Server(_)) => Action::Crash,
        (_, Who::Server(_)) => return wrong("the only thing that a server can do is crash", text),
        ("join", _) => Action::Join,
        ("hop", _) => Action::Hop,
        ("leave", _) => Action::Leave,
        (name, _) => match name.strip_prefix("buy=").map(str::parse) {
            Some(Ok(product)) => Action::Buy(product),
            Some(Err(_)) => return wrong("a product is its id, a number", text),
            None => return wrong("an action is join, hop, leave or buy=PRODUCT", text),
        },
    };
    let (every, range) = match when.strip_prefix("every") {
        Some(range) => (true, range),
        None => (false, when),
    };
    let (from, to) = match range.split_once('-') {
        // In 20-60s the unit is that of the second time, unless the first one has its own.
        Some((from, to)) => {
            let unit = &to[number_length(to)..];
            let from = if number_length(from) == from.len() {
                time(&format!("{from}{unit}"))?
            } else {
                time(from)?
            };
            (from, time(to)?)
        }
        None => (time(range)?, time(range)?),
    };
    if from > to {
        return wrong("the end of a range is before its beginning", text);
    }
    if every && from.is_zero() {
        return wrong("what happens every so often must not happen without a pause", text);
    }
    Ok(Timed { action, from, to, every, on })
}

fn number_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len())
}

fn time(text: &str) -> Result<Duration, PlanError> {
    let (number, unit) = text.split_at(number_length(text));
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return wrong("a time is a number with ms, s, m or h", text),
    };
    match number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
    {
        Some(time) if time < Duration::from_secs(10 * 365 * 86_400) => Ok(time),
        _ => wrong("a time is a number with ms, s, m or h", text),
    }
}

impl Plan {
    /// True when it goes on for ever: something happens every so often to a player that never
    /// leaves.
    pub fn is_endless(&self) -> bool {
        self.parts.iter().any(Part::is_endless)
    }

    /// Fails when it names a server beyond so many.
    pub fn check(&self, servers: usize) -> Result<(), PlanError> {
        for part in &self.parts {
            let named = part.actions.iter().filter_map(|timed| timed.on).chain(match part.who {
                Who::Server(server) => Some(On::Server(server)),
                Who::Players(..) => None,
            });
            for on in named {
                if let On::Server(server) = on
                    && server >= servers
                {
                    return wrong(
                        "there are not so many servers",
                        &format!("server {}", server + 1),
                    );
                }
            }
        }
        Ok(())
    }

    /// Carries the plan out. `crash` is called with the servers that crash.
    pub(crate) fn start(
        &self,
        world: &Arc<World>,
        crash: impl Fn(usize) + Clone + Send + 'static,
    ) -> Result<(), PlanError> {
        let begin = Instant::now();
        self.check(world.servers())?;
        for part in &self.parts {
            let (first, last) = match part.who {
                Who::Players(first, last) => (first, last),
                Who::Server(_) => (0, 0),
            };
            for user_id in first..=last {
                let doing = Doing::new(part, begin, &*world.chance);
                let (own, crash) = (world.clone(), crash.clone());
                world.spawn(doing.run(own, user_id, crash));
            }
        }
        Ok(())
    }
}

impl Part {
    fn is_endless(&self) -> bool {
        self.actions.iter().any(|timed| timed.every) && !self.actions.iter().any(Timed::is_last)
    }
}

impl Timed {
    fn is_last(&self) -> bool {
        self.action == Action::Leave && !self.every
    }

    fn draw(&self, chance: &dyn Rng) -> Duration {
        let span = u64::try_from((self.to - self.from).as_millis()).unwrap_or(u64::MAX);
        let bits = chance.bits() & u128::from(u32::MAX);
        let part = u128::from(span) * bits / u128::from(u32::MAX);
        self.from + Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

/// What one player has still to do.
struct Doing {
    server: Option<usize>,
    next: Vec<(Instant, Timed)>,
}

impl Doing {
    fn new(part: &Part, begin: Instant, chance: &dyn Rng) -> Self {
        let server = if let Who::Server(server) = part.who { Some(server) } else { None };
        Self {
            server,
            next: part.actions.iter().map(|timed| (begin + timed.draw(chance), *timed)).collect(),
        }
    }

    async fn run(mut self, world: Arc<World>, user_id: i64, crash: impl Fn(usize)) {
        let has_last = self.next.iter().any(|(_, timed)| timed.is_last());
        // Of what is due at the same time, the first in the plan comes first.
        while let Some(index) =
            (0..self.next.len()).min_by_key(|index| (self.next[*index].0, *index))
        {
            let (at, timed) = self.next[index];
            sleep_until(at).await;
            if timed.every {
                self.next[index].0 = at + timed.draw(&*world.chance);
            } else {
                self.next.remove(index);
            }
            match self.server {
                Some(server) => crash(server),
                None => act(&world, user_id, timed),
            }
            if has_last && !self.next.iter().any(|(_, timed)| timed.is_last()) {
                // What happens every so often ends with the last leave; what is told for a time
                // that comes later, such as another join, happens all the same.
                self.next.retain(|(_, timed)| !timed.every);
            }
        }
    }
}

fn act(world: &Arc<World>, user_id: i64, timed: Timed) {
    let on = world.servers_of(user_id);
    let chosen = timed.on.map(|on| match on {
        On::Server(server) => server,
        On::Any => usize::try_from(world.random(world.servers() as u64)).unwrap_or(0),
    });
    match timed.action {
        Action::Join => world.join(chosen.unwrap_or(0), user_id, &Join::default()),
        Action::Hop => {
            let Some(last) = on.last() else { return };
            let to = chosen.unwrap_or_else(|| world.another(*last));
            for server in &on {
                world.leave(*server, user_id);
            }
            world.join(to, user_id, &Join::default());
        }
        Action::Leave => {
            for server in
                on.into_iter().filter(|server| chosen.is_none_or(|chosen| chosen == *server))
            {
                world.leave(server, user_id);
            }
        }
        Action::Buy(product_id) => world.buy(user_id, product_id),
        Action::Crash => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let plan: Plan = "1:join@0s,hop@60s/2,buy=1234@1.5m,leave@120; 2-20:join@0-30s/*; \
            server1:crash@500ms"
            .parse()
            .unwrap();
        let actions: Vec<_> = plan.parts[0]
            .actions
            .iter()
            .map(|timed| (timed.action, timed.from, timed.on))
            .collect();
        let s = Duration::from_secs;
        assert_eq!(
            actions,
            [
                (Action::Join, s(0), None),
                (Action::Hop, s(60), Some(On::Server(1))),
                (Action::Buy(1234), s(90), None),
                (Action::Leave, s(120), None)
            ]
        );
        assert_eq!((plan.parts[1].who, plan.parts[1].actions[0].to), (Who::Players(2, 20), s(30)));
        assert_eq!(
            (plan.parts[2].who, plan.parts[2].actions[0].from),
            (Who::Server(0), Duration::from_millis(500))
        );
        assert!(!plan.is_endless());
    }

    #[test]
    fn a_number_alone_is_so_many_players_that_hop() {
        let plan: Plan = "20".parse().unwrap();
        assert_eq!(plan, "1-20:join@0-10s/*,hop@every20-60s".parse().unwrap());
        assert!(plan.is_endless());
        assert!(!"1:join@0,hop@every1m,leave@1h".parse::<Plan>().unwrap().is_endless());
    }

    #[test]
    fn wrong_plans_say_what_is_wrong() {
        for (text, what) in [
            ("x", "a part of a plan"),
            ("x:join@0s", "a user id"),
            ("0:join@0s", "a user id"),
            ("2-1:join@0s", "a user id"),
            ("1:join", "ACTION@WHEN"),
            ("1:fly@0s", "an action is"),
            ("1:buy=x@0s", "a product"),
            ("1:join@soon", "a time"),
            ("1:join@0s/0", "counted from 1"),
            ("1:hop@every0s", "without a pause"),
            ("1:hop@5-2s", "before its beginning"),
            ("server1:join@0s", "crash"),
            ("1:crash@0s", "an action is"),
            ("0", "players"),
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("in=`"), "{text}: {error}");
        }
    }
}
