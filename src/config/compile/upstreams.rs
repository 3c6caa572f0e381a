//! `upstreams`: compiles settings to endpoints, or keeps unchanged ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use super::limiting::random_key;
use crate::config::parsed::{self, Buffering};
use crate::config::place::Place;
use crate::config::source::why;
use crate::proxy::{
    Address, Balance, Buffer, BufferSettings, EjectSettings, HealthRequest, HealthSettings, Limits,
    Purpose, RetrySettings, ServerSettings, SpoolSpace, StickySettings, Upstream, UpstreamSettings,
    UpstreamTimeouts,
};
use crate::state::{StateKey, key_of_text};

/// What keys of sticky cookies are derived for.
const STICKY: &str = "sticky cookies";

/// Upstreams by name; `None` for one whose errors were reported.
pub(super) struct Upstreams {
    named: Vec<(String, Option<Arc<Upstream>>)>,
    /// Those that a route names by URL.
    bare: Vec<Arc<Upstream>>,
}

impl Upstreams {
    /// The upstream of a name: `Err` where there is none.
    pub(super) fn named(&self, name: &str) -> Result<Option<Arc<Upstream>>, ()> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, upstream)| upstream.clone()).ok_or(())
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// All upstreams.
    pub(super) fn all(self) -> Vec<Arc<Upstream>> {
        self.named
            .into_iter()
            .filter_map(|(_, upstream)| upstream)
            .chain(self.bare)
            .collect()
    }
}

impl Compiler<'_> {
    /// Creates the upstreams, or keeps unchanged ones.
    pub(super) fn upstreams(
        &mut self,
        parsed: &parsed::Named<parsed::Upstream>,
        key: Option<&StateKey>,
    ) -> Upstreams {
        let mut named = Vec::new();
        for (name, parsed) in parsed {
            let made = if parsed.broken {
                None
            } else {
                self.upstream(&name.value, parsed, key)
            };
            named.push((name.value.clone(), made));
        }
        Upstreams {
            named,
            bare: Vec::new(),
        }
    }

    fn upstream(
        &mut self,
        name: &str,
        parsed: &parsed::Upstream,
        key: Option<&StateKey>,
    ) -> Option<Arc<Upstream>> {
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let servers = self.servers(parsed)?;
        let retries = self.retries(parsed)?;
        let limits = self.limits(parsed)?;
        if let parsed::Balance::Hash(_) = &parsed.balance.value
            && !parsed.slow_start.value.is_zero()
        {
            self.errors
                .at(parsed.slow_start.place, "`slow_start` with `balance: hash`")
                .hint("a value has its server, or it has not: leave `slow_start` out");
            return None;
        }
        let settings = UpstreamSettings {
            purpose: Purpose::Proxy,
            name: name.to_owned(),
            servers,
            balance: match parsed.balance.value {
                parsed::Balance::RoundRobin | parsed::Balance::Hash(_) => Balance::RoundRobin,
                parsed::Balance::LeastRequests => Balance::LeastRequests,
                parsed::Balance::RandomTwo => Balance::RandomTwo,
            },
            hash: match &parsed.balance.value {
                parsed::Balance::Hash(source) => Some(source.to_string()),
                parsed::Balance::RoundRobin
                | parsed::Balance::LeastRequests
                | parsed::Balance::RandomTwo => None,
            },
            timeouts: UpstreamTimeouts {
                connect: parsed.connect.value,
                response: parsed.response.value,
                idle: parsed.idle.value,
                total: parsed.total.as_ref().map(|total| total.value),
            },
            slow_start: parsed.slow_start.value,
            sticky: match &parsed.sticky {
                Some(sticky) => Some(self.sticky(name, sticky, key)?),
                None => None,
            },
            eject: self.eject(parsed),
            health: self.health(parsed)?,
            limits,
            retries,
            keep_alive: size(u64::from(parsed.keep_alive.value)),
            fresh: parsed.fresh.value,
            underscores: parsed.underscores.value,
            buffer: match &parsed.buffer {
                Buffering::Default => Some(BufferSettings::DEFAULT),
                Buffering::Off => None,
                Buffering::Own(buffer) => Some(BufferSettings {
                    request: size(buffer.request.value),
                    response: size(buffer.response.value),
                    spool: buffer
                        .spool
                        .as_ref()
                        .map(|spool| (spool.value.clone(), buffer.spool_bytes.value)),
                    is_own: true,
                }),
            },
        };
        let place = match &parsed.buffer {
            Buffering::Own(buffer) => buffer
                .spool
                .as_ref()
                .map_or(buffer.place, |spool| spool.place),
            Buffering::Default | Buffering::Off => parsed.place,
        };
        self.make(settings, place)
    }

    /// The servers of an upstream; `None` if some request would have none.
    fn servers(&mut self, parsed: &parsed::Upstream) -> Option<Vec<ServerSettings>> {
        let before = self.errors.count();
        let mut servers: Vec<ServerSettings> = Vec::new();
        for server in &parsed.servers {
            let address = address(&server.url.value);
            if servers.iter().any(|known| known.address == address) {
                self.errors
                    .at(server.url.place, format!("`{address}` is here twice"))
                    .hint("a `weight` gives a server a larger share of the requests");
            }
            servers.push(ServerSettings {
                address,
                weight: server.weight.value,
                backup: server.backup.value,
                max: server
                    .max
                    .as_ref()
                    .or(parsed.max.as_ref())
                    .map(|max| whole(max.value)),
            });
        }
        let mut first = parsed.servers.iter().filter(|it| !it.backup.value);
        match (first.next(), parsed.servers.first()) {
            (Some(first), _) if !servers.iter().any(|it| it.weight > 0 && !it.backup) => {
                self.errors
                    .at(first.weight.place, "no server has a `weight` above 0")
                    .hint("a server of weight 0 gets no requests, and backups only stand in");
            }
            (None, Some(backup)) => {
                self.errors
                    .at(backup.backup.place, "every server is a `backup`")
                    .hint("a backup stands in for the other servers; leave it out at one");
            }
            (Some(_), _) | (None, None) => {}
        }
        (self.errors.count() == before).then_some(servers)
    }

    /// `eject`, where there is somebody else to go to.
    fn eject(&mut self, parsed: &parsed::Upstream) -> Option<EjectSettings> {
        let rules = parsed.eject.as_ref().filter(|_| parsed.servers.len() > 1)?;
        if rules.longest.value < rules.time.value {
            let place = [rules.longest.place, rules.time.place];
            let place = place.into_iter().find(|place| place.line > 0);
            self.errors
                .at(
                    place.unwrap_or(parsed.place),
                    "`longest` is shorter than `for`",
                )
                .hint("a server is out `for` the first time, and `longest` at most");
        }
        Some(EjectSettings {
            consecutive_failures: rules.consecutive_failures.value,
            time: rules.time.value,
            longest: rules.longest.value,
            most: rules.most.value,
            on: rules.on.iter().map(|condition| condition.value).collect(),
        })
    }

    /// The cookie that keeps clients at their servers; `None` for an error.
    fn sticky(
        &mut self,
        name: &str,
        parsed: &parsed::StickyRules,
        key: Option<&StateKey>,
    ) -> Option<StickySettings> {
        let derived = match (&parsed.secret, key) {
            (Some(secret), _) => Some(key_of_text(&secret.value, STICKY)),
            (None, Some(key)) => Some(key.shared(STICKY)),
            (None, None) => None,
        };
        let is_random = derived.is_none();
        let key = match derived {
            Some(Ok(key)) => key,
            Some(Err(_)) => {
                self.errors
                    .at(parsed.cookie.place, "no key could be derived");
                return None;
            }
            None => self.random_sticky_key(name),
        };
        Some(StickySettings {
            cookie: parsed.cookie.value.clone(),
            key,
            is_random,
            max_age: parsed.max_age.as_ref().map(|it| it.value),
        })
    }

    /// The key that the process has for cookies of this upstream, or a new one.
    fn random_sticky_key(&self, name: &str) -> [u8; 16] {
        let mut before = self.previous.into_iter().flat_map(|it| &it.upstreams);
        let before = before.find_map(|upstream| {
            let settings = upstream.settings();
            let sticky = settings.sticky.as_ref().filter(|it| it.is_random)?;
            (settings.name == name).then_some(sticky.key)
        });
        before.unwrap_or_else(|| {
            tracing::info!(
                upstream.name = name,
                "sticky cookies have a random key: after a restart clients are dealt anew; `sticky.secret` keeps them"
            );
            random_key()
        })
    }

    /// How servers are checked, if they are; `None` for an error.
    fn health(&mut self, parsed: &parsed::Upstream) -> Option<Option<HealthSettings>> {
        let Some(health) = &parsed.health else {
            return Some(None);
        };
        let is_unix = |it: &parsed::UpstreamServer| matches!(it.url.value, parsed::Server::Unix(_));
        if let Some(port) = &health.port
            && parsed.servers.iter().any(is_unix)
        {
            self.errors
                .at(port.place, "a Unix socket has no other `port`")
                .hint("put servers on sockets into an upstream of their own");
            return None;
        }
        let request = health.request.as_ref().map(|request| HealthRequest {
            method: request.method.clone(),
            path: request.path.value.clone(),
            host: request.host.as_ref().map(|host| host.value.clone()),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (name.value.clone(), value.value.clone()))
                .collect(),
            status: request.status.clone(),
            body: request.body.as_ref().map(|body| body.value.clone()),
        });
        let port = health.port.as_ref().map(|port| u16::try_from(port.value));
        Some(Some(HealthSettings {
            request,
            port: port.and_then(Result::ok),
            interval: health.interval.value,
            timeout: health.timeout,
            unhealthy_after: health.unhealthy_after.value,
            healthy_after: health.healthy_after.value,
            tries_all: health.tries_all.value,
        }))
    }

    fn retries(&mut self, parsed: &parsed::Upstream) -> Option<RetrySettings> {
        let rules = match &parsed.retries {
            parsed::Retries::On(rules) => Some(rules),
            parsed::Retries::Off => None,
        };
        let holds = rules.is_some_and(|rules| !rules.hold.value.is_zero());
        if let Some(queue) = &parsed.queue
            && !holds
            && !is_limited(parsed)
        {
            self.errors
                .at(
                    queue.place,
                    "`queue` without `max` or `retries.hold`: no request waits",
                )
                .hint("write `max` as well: connections: {max: 64}; or retries: {hold: 5s}");
            return None;
        }
        let Some(rules) = rules else {
            return Some(RetrySettings::OFF);
        };
        if rules.non_idempotent.value {
            let warning = "requests that are not idempotent may be sent twice: \
                           the app must recognise them, or an order is placed twice";
            self.errors.warn(rules.non_idempotent.place, warning);
        }
        Some(RetrySettings {
            attempts: rules.attempts.value,
            on: rules.on.iter().map(|condition| condition.value).collect(),
            budget: rules.budget.value,
            per_try: rules.per_try.as_ref().map(|it| it.value),
            hold: rules.hold.value,
            queue: queue(parsed),
            non_idempotent: rules.non_idempotent.value,
        })
    }

    /// Who waits, where a server has a `max`; `Some(None)` where none has, `None` for an error.
    fn limits(&mut self, parsed: &parsed::Upstream) -> Option<Option<Limits>> {
        if is_limited(parsed) {
            return Some(Some(Limits {
                queue: queue(parsed),
                wait: parsed.wait.as_ref().map_or(Limits::WAIT, |it| it.value),
            }));
        }
        if let Some(wait) = &parsed.wait {
            self.errors
                .at(wait.place, "`wait` without `max`: no request waits")
                .hint("write `max` as well: connections: {max: 64}");
            return None;
        }
        Some(None)
    }

    /// The upstream of a URL; the same URL is one upstream, unless it is used for another purpose.
    pub(super) fn bare(
        &mut self,
        server: &parsed::Server,
        purpose: Purpose,
        place: Place,
        upstreams: &mut Upstreams,
    ) -> Option<Arc<Upstream>> {
        let address = address(server);
        let name = address.to_string();
        let known = upstreams
            .bare
            .iter()
            .find(|known| known.name == name && known.settings().purpose == purpose);
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let settings = UpstreamSettings {
            purpose,
            name,
            servers: vec![ServerSettings::new(address)],
            balance: Balance::RoundRobin,
            hash: None,
            slow_start: Duration::ZERO,
            sticky: None,
            eject: None,
            health: None,
            limits: None,
            retries: match purpose {
                Purpose::Proxy => RetrySettings::DEFAULT,
                // What decides who a client is has deadlines of its own.
                Purpose::Ask | Purpose::Login => RetrySettings::OFF,
            },
            timeouts: UpstreamTimeouts::DEFAULT,
            keep_alive: usize::try_from(UpstreamSettings::KEEP_ALIVE).unwrap_or(usize::MAX),
            fresh: UpstreamSettings::FRESH,
            underscores: false,
            buffer: Some(BufferSettings::DEFAULT),
        };
        let made = self.make(settings, place)?;
        upstreams.bare.push(Arc::clone(&made));
        Some(made)
    }

    fn make(&mut self, settings: UpstreamSettings, place: Place) -> Option<Arc<Upstream>> {
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let words = match &settings.buffer {
            Some(buffer) if buffer.is_own => ", buffered",
            Some(_) => "",
            None => ", not buffered",
        };
        self.summary.insert(
            format!("upstream {}", settings.name),
            format!(
                "{}, {}{words}",
                servers.join(" "),
                settings.balance_in_words()
            ),
        );
        let previous = self.previous.filter(|it| it.workers == self.workers);
        let before = previous.and_then(|previous| {
            let mut upstreams = previous.upstreams.iter();
            upstreams.find(|before| {
                let before = before.settings();
                before.name == settings.name && before.purpose == settings.purpose
            })
        });
        if let Some(kept) = before.filter(|before| *before.settings() == settings) {
            return Some(Arc::clone(kept));
        }
        let buffer = match &settings.buffer {
            None => None,
            Some(settings) => Some(Buffer {
                request: settings.request,
                response: settings.response,
                space: match &settings.spool {
                    None => None,
                    Some((directory, bytes)) => Some(self.space(directory, *bytes, place)?),
                },
                is_own: settings.is_own,
            }),
        };
        let before = before.map(|before| &**before);
        let dialer = self.dialer.clone();
        let made = Upstream::new(settings, buffer, self.workers, before, dialer);
        Some(Arc::new(made))
    }

    fn space(&mut self, directory: &Path, bytes: u64, place: Place) -> Option<Arc<SpoolSpace>> {
        let named = directory.to_owned();
        match self.make_file(directory, move || SpoolSpace::open(named, bytes)) {
            Ok(space) => Some(Arc::new(space)),
            Err(error) => {
                let problem = format!(
                    "`{}` cannot hold the spool: {}",
                    directory.display(),
                    why(&error)
                );
                self.errors.at(place, problem);
                None
            }
        }
    }
}

/// Whether a server has a `max`.
fn is_limited(parsed: &parsed::Upstream) -> bool {
    parsed.max.is_some() || parsed.servers.iter().any(|server| server.max.is_some())
}

/// `connections.queue`, or its default.
fn queue(parsed: &parsed::Upstream) -> usize {
    let queue = parsed.queue.as_ref();
    queue.map_or(RetrySettings::QUEUE, |queue| whole(queue.value))
}

fn whole(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn address(server: &parsed::Server) -> Address {
    match server {
        parsed::Server::Http { host, port } => Address::Tcp(host.clone(), *port),
        parsed::Server::Unix(path) => Address::Unix(path.clone()),
    }
}
