//! `rate_limit`, `in_flight` and `addresses`: compiled to what a route holds, with the counts of the previous
//! configuration where a limit is the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::Compiler;
use crate::auth::{ClaimPath, Guard, Scheme};
use crate::config::decode::suggest;
use crate::config::parsed::{self, LimitSource, Spanned};
use crate::limit::{
    By, CountedRequests, Counts, InFlight, LimitId, Limits, MOST, Quota, RateFields, RateLimit,
    Rule, Source, Table,
};
use crate::net::addresses::{Addresses, Networks};
use crate::route::Pattern;
use crate::snapshot::Snapshot;

/// What keeps load away from a route.
#[derive(Clone, Debug, Default)]
pub(super) struct Limiting {
    pub(super) addresses: Option<Arc<Addresses>>,
    pub(super) limits: Option<Arc<Limits>>,
}

/// What `defaults` says, for routes that say nothing.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    addresses: Option<Arc<Addresses>>,
    rates: Vec<Arc<RateLimit>>,
    in_flight: Vec<Arc<InFlight>>,
}

impl Defaults {
    /// For the gateway's own endpoints.
    pub(super) fn limiting(&self) -> Limiting {
        Limiting {
            addresses: self.addresses.clone(),
            limits: limits(self.rates.clone(), self.in_flight.clone()),
        }
    }
}

/// The counts of the previous configuration.
#[derive(Debug, Default)]
pub(super) struct Counting {
    tables: HashMap<LimitId, Arc<Table>>,
    counts: HashMap<LimitId, Arc<Counts>>,
    refused: HashMap<LimitId, Arc<AtomicU64>>,
}

impl Counting {
    /// Those of all routes.
    pub(super) fn of(previous: Option<&Snapshot>) -> Self {
        let mut counting = Self::default();
        let routes = previous.into_iter().flat_map(|it| &it.routes);
        for limits in routes.filter_map(|route| route.limits.as_ref()) {
            let rules = limits.rates.iter().map(|rate| &rate.rule);
            for rule in rules.chain(limits.in_flight.iter().map(|it| &it.rule)) {
                let refused = || Arc::clone(&rule.refused);
                let entry = counting.refused.entry(rule.id.clone());
                entry.or_insert_with(refused);
            }
            for rate in &limits.rates {
                let table = || Arc::clone(&rate.table);
                counting
                    .tables
                    .entry(rate.rule.id.clone())
                    .or_insert_with(table);
            }
            for limit in &limits.in_flight {
                let counts = || Arc::clone(&limit.counts);
                counting
                    .counts
                    .entry(limit.rule.id.clone())
                    .or_insert_with(counts);
            }
        }
        counting
    }
}

/// Whose limits they are.
#[derive(Clone, Copy)]
struct Owner<'o> {
    /// The route's name; `None` for `defaults`.
    route: Option<&'o str>,
    /// The parameters of its path.
    pattern: Option<&'o Pattern>,
    /// Whether its clients have claims; a limit of `defaults` counts those that have none by address.
    has_claims: bool,
}

/// A key for hashes that nobody can guess.
pub(super) fn random_key() -> [u8; 16] {
    use std::hash::{BuildHasher as _, RandomState};
    let mut key = [0; 16];
    if getrandom::fill(&mut key).is_err() {
        // The standard library gets a key from the system, or panics.
        let random = RandomState::new();
        let half = |which: u8| u128::from(random.hash_one(which));
        key = (half(0) << 64 | half(1)).to_ne_bytes();
    }
    key
}

fn limits(rates: Vec<Arc<RateLimit>>, in_flight: Vec<Arc<InFlight>>) -> Option<Arc<Limits>> {
    let is_empty = rates.is_empty() && in_flight.is_empty();
    (!is_empty).then(|| {
        Arc::new(Limits {
            rates: rates.into(),
            in_flight: in_flight.into(),
        })
    })
}

/// The networks of a list.
fn networks(list: &[Spanned<parsed::TrustedPeers>]) -> Networks {
    let networks = list.iter().filter_map(|item| match item.value {
        parsed::TrustedPeers::Network(network) => Some(network),
        parsed::TrustedPeers::Unix => None,
    });
    Networks {
        networks: networks.collect(),
        unix: (list.iter()).any(|item| item.value == parsed::TrustedPeers::Unix),
    }
}

impl Compiler<'_> {
    /// `defaults`.
    pub(super) fn default_limiting(&mut self, parsed: &parsed::Limiting) -> Defaults {
        let owner = Owner {
            route: None,
            pattern: None,
            has_claims: true,
        };
        let addresses = parsed.addresses.as_ref();
        Defaults {
            addresses: addresses.and_then(|lists| self.addresses(lists)),
            rates: self.rates(parsed.rate_limit.as_deref().unwrap_or_default(), owner),
            in_flight: self.in_flights(parsed.in_flight.as_deref().unwrap_or_default(), owner),
        }
    }

    /// What a route says, and what `defaults` says where it says nothing.
    pub(super) fn route_limiting(
        &mut self,
        parsed: &parsed::Limiting,
        name: &str,
        guard: &Guard,
        pattern: &Pattern,
    ) -> Limiting {
        let owner = Owner {
            route: Some(name),
            pattern: Some(pattern),
            has_claims: matches!(guard.scheme(), Scheme::Jwt(_)),
        };
        let rates = match &parsed.rate_limit {
            Some(own) => self.rates(own, owner),
            None => self.defaults.rates.clone(),
        };
        let mut rates = rates;
        if guard.basic().is_some() {
            rates.extend(self.wrong_passwords());
        }
        let in_flight = match &parsed.in_flight {
            Some(own) => self.in_flights(own, owner),
            None => self.defaults.in_flight.clone(),
        };
        Limiting {
            addresses: match &parsed.addresses {
                Some(own) => self.addresses(own),
                None => self.defaults.addresses.clone(),
            },
            limits: limits(rates, in_flight),
        }
    }

    /// The limit of wrong passwords, which all routes share.
    fn wrong_passwords(&mut self) -> Option<Arc<RateLimit>> {
        const MINUTE: Duration = Duration::from_secs(60);
        let most = RateLimit::WRONG_PASSWORDS;
        let id = LimitId {
            route: None,
            name: "wrong passwords".to_owned(),
            by: "ip".to_owned(),
        };
        let quota = Quota::new(most, MINUTE, most)?;
        // Each route has it from here, and all have the same numbers.
        let refused = self.counting.refused.entry(id.clone()).or_default();
        let refused = Arc::clone(refused);
        let new = || Arc::new(Table::new(RateLimit::CLIENTS, random_key(), Instant::now()));
        let table = self.counting.tables.entry(id.clone()).or_insert_with(new);
        Some(Arc::new(RateLimit {
            table: Arc::clone(table),
            quota,
            words: RateLimit::in_words(most, MINUTE, most),
            counts: CountedRequests::WrongPasswords,
            fields: None,
            rule: Rule {
                id,
                by: By {
                    sources: Box::new([Source::Ip]),
                    v4: 32,
                    v6: 64,
                },
                except: None,
                only_reports: false,
                over: AtomicU64::new(0),
                refused,
            },
        }))
    }

    fn addresses(&mut self, parsed: &parsed::AddressLists) -> Option<Arc<Addresses>> {
        if parsed.is_off {
            return None;
        }
        for denied in &parsed.deny {
            if let Some(allowed) = parsed.allow.iter().find(|it| it.value == denied.value) {
                let first = self.errors.name(allowed.place);
                let problem = format!("this network is in both lists; `allow` has it at {first}");
                self.errors.at(denied.place, problem);
            }
        }
        let (allow, deny) = (networks(&parsed.allow), networks(&parsed.deny));
        Some(Arc::new(Addresses::new(&allow, &deny)))
    }

    fn rates(&mut self, parsed: &[parsed::RateLimit], owner: Owner<'_>) -> Vec<Arc<RateLimit>> {
        let mut rates: Vec<Arc<RateLimit>> = Vec::new();
        self.too_many(parsed.iter().map(|limit| &limit.rule));
        for parsed in parsed {
            let Some(rule) = self.rule(&parsed.rule, owner) else {
                continue;
            };
            if rates.iter().any(|other| other.rule.id.name == rule.id.name) {
                let place = parsed
                    .rule
                    .name
                    .as_ref()
                    .map_or(parsed.rule.place, |it| it.place);
                let problem = format!("`{}` is the name of another limit here", rule.id.name);
                self.errors
                    .at(place, problem)
                    .hint("give each a `name`: responses and logs say which one it was");
                continue;
            }
            if parsed.only_refused.value && rule.by.has_claims() {
                self.errors
                    .at(parsed.only_refused.place, "who is refused has no claims")
                    .hint("count refused requests by ip, header, cookie or path");
                continue;
            }
            let (count, per) = parsed.rate.value;
            let burst = parsed.burst.as_ref().map(|it| it.value);
            let burst = burst.unwrap_or_else(|| count.get());
            let Some(quota) = Quota::new(count.get(), per, burst) else {
                let place = parsed
                    .burst
                    .as_ref()
                    .map_or(parsed.rate.place, |it| it.place);
                self.errors
                    .at(place, "this limit is out of bounds")
                    .hint("at most a million requests a second, and a burst that is earned again within a year");
                continue;
            };
            // Everybody together is one client.
            let clients = if rule.by.sources.is_empty() {
                1
            } else {
                parsed.keys.value
            };
            let table = match self.counting.tables.get(&rule.id) {
                Some(table) if table.has_size(clients) => Arc::clone(table),
                Some(table) => Arc::new(table.resized(clients)),
                None => Arc::new(Table::new(clients, random_key(), Instant::now())),
            };
            let fields = RateFields::new(&rule.id.name, burst, quota);
            rates.push(Arc::new(RateLimit {
                table,
                quota,
                words: RateLimit::in_words(count.get(), per, burst),
                counts: match parsed.only_refused.value {
                    true => CountedRequests::Refused,
                    false => CountedRequests::Every,
                },
                fields: fields.filter(|_| parsed.fields.value),
                rule,
            }));
        }
        rates
    }

    fn in_flights(&mut self, parsed: &[parsed::InFlight], owner: Owner<'_>) -> Vec<Arc<InFlight>> {
        let mut limits: Vec<Arc<InFlight>> = Vec::new();
        self.too_many(parsed.iter().map(|limit| &limit.rule));
        for parsed in parsed {
            let Some(rule) = self.rule(&parsed.rule, owner) else {
                continue;
            };
            if limits.iter().any(|other| other.rule.id == rule.id) {
                let problem = "this limit counts by the same as another one here";
                self.errors
                    .at(parsed.rule.place, problem)
                    .hint("the smaller one is enough, or give each a `name`");
                continue;
            }
            let clients = if rule.by.sources.is_empty() {
                1
            } else {
                RateLimit::CLIENTS
            };
            let clients = usize::try_from(clients).unwrap_or(usize::MAX);
            let counts = match self.counting.counts.get(&rule.id) {
                Some(counts) => Arc::clone(counts),
                None => Arc::new(Counts::new(clients, random_key())),
            };
            limits.push(Arc::new(InFlight {
                counts,
                max: parsed.max.value,
                rule,
            }));
        }
        limits
    }

    fn too_many<'p>(&mut self, mut rules: impl Iterator<Item = &'p parsed::LimitRule>) {
        if let Some(one) = rules.nth(MOST) {
            let problem = format!("a route has at most {MOST} limits of a kind");
            self.errors.at(one.place, problem);
        }
    }

    /// What limits of both kinds have; `None` where an error was reported.
    fn rule(&mut self, parsed: &parsed::LimitRule, owner: Owner<'_>) -> Option<Rule> {
        let sources = parsed.by.iter().map(|source| self.source(source, owner));
        let sources: Option<Vec<Source>> = sources.collect::<Vec<_>>().into_iter().collect();
        let bits = |bits: u32| u8::try_from(bits).unwrap_or(u8::MAX);
        let by = By {
            sources: sources?.into(),
            v4: bits(parsed.v4.value),
            v6: bits(parsed.v6.value),
        };
        let words: Vec<String> = parsed.by.iter().map(|it| it.value.to_string()).collect();
        let mut words = words.join(", ");
        if !words.is_empty() && (by.v4, by.v6) != (32, 64) {
            words = format!("{words} (/{} and /{})", by.v4, by.v6);
        }
        let name = match (&parsed.name, owner.route) {
            (Some(name), _) => name.value.clone(),
            (None, None) => "defaults".to_owned(),
            // The name is told in responses, which have no place for every character.
            (None, Some(route)) => route
                .chars()
                .map(|char| match char {
                    '"' | '\\' => '_',
                    ' '..='~' => char,
                    _ => '_',
                })
                .collect(),
        };
        let except = networks(&parsed.except);
        let has_except = !parsed.except.is_empty();
        let id = LimitId {
            route: owner.route.map(str::to_owned),
            name,
            by: words,
        };
        Some(Rule {
            by,
            except: has_except.then(|| Addresses::new(&except, &Networks::default())),
            only_reports: parsed.only_reports.value,
            over: AtomicU64::new(0),
            refused: self.counting.refused.get(&id).cloned().unwrap_or_default(),
            id,
        })
    }

    /// What decides on the server of a request, for an upstream with `balance: hash`.
    pub(super) fn hashed_by(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
        guard: &Guard,
        pattern: &Pattern,
    ) -> Option<Box<By>> {
        let parsed::ProxyTo::Upstream(name) = &parsed.proxy.as_ref()?.value else {
            return None;
        };
        let mut upstreams = gateway.upstreams.iter();
        let (_, upstream) = upstreams.find(|(known, _)| known.value == *name)?;
        let parsed::Balance::Hash(source) = &upstream.balance.value else {
            return None;
        };
        let source = match (source, guard.scheme()) {
            (LimitSource::Claim(_), Scheme::Open | Scheme::Ask(_)) => {
                let path = &parsed.path.value;
                let problem = format!("the route {path} has no token whose claim this could be");
                self.errors
                    .at(upstream.balance.place, problem)
                    .hint("`auth: {jwt: NAME}` knows claims");
                return None;
            }
            (LimitSource::Path(name), _)
                if !pattern.parameters().any(|(known, _)| known == name) =>
            {
                let path = &parsed.path.value;
                let problem = format!("the route {path} has no parameter `{name}`");
                self.errors
                    .at(upstream.balance.place, problem)
                    .hint("every route that uses this upstream must have it");
                return None;
            }
            (source, _) => Spanned {
                value: source.clone(),
                place: upstream.balance.place,
                private: false,
            },
        };
        let owner = Owner {
            route: None,
            pattern: Some(pattern),
            has_claims: true,
        };
        let source = self.source(&source, owner)?;
        Some(Box::new(By {
            sources: Box::new([source]),
            v4: 32,
            v6: 64,
        }))
    }

    fn source(&mut self, parsed: &Spanned<LimitSource>, owner: Owner<'_>) -> Option<Source> {
        match &parsed.value {
            LimitSource::Ip => Some(Source::Ip),
            LimitSource::Header(name) => Some(Source::Header(name.clone())),
            LimitSource::Cookie(name) => Some(Source::Cookie(name.clone())),
            LimitSource::Claim(_) if !owner.has_claims => {
                self.errors
                    .at(
                        parsed.place,
                        "this route has no token whose claim this could be",
                    )
                    .hint("`auth: {jwt: NAME}` knows claims");
                None
            }
            LimitSource::Claim(path) => match ClaimPath::parse(path) {
                Ok(path) => Some(Source::Claim(path)),
                Err(problem) => {
                    self.errors.at(parsed.place, problem);
                    None
                }
            },
            LimitSource::Path(name) => {
                let Some(pattern) = owner.pattern else {
                    self.errors
                        .at(
                            parsed.place,
                            "`defaults` are for all paths, which have no parameter in common",
                        )
                        .hint("write this limit at the route");
                    return None;
                };
                let found = pattern.parameters().find(|(known, _)| known == name);
                if let Some((_, at)) = found {
                    return Some(Source::Path(at));
                }
                let known: Vec<&str> = pattern.parameters().map(|(name, _)| name).collect();
                let hint = suggest(name, known.iter().copied(), "the parameters of the path");
                self.errors
                    .at(parsed.place, format!("the path has no parameter `{name}`"))
                    .hint(hint);
                None
            }
        }
    }

    /// Notes the limits of a route for the log of a reload.
    pub(super) fn summarize_limiting(
        &mut self,
        part: &str,
        limiting: &Limiting,
        parsed: &parsed::Limiting,
    ) {
        if let Some(limits) = &limiting.limits {
            let rates = limits
                .rates
                .iter()
                .map(|it| format!("{} {}", it.rule.id.name, it.words));
            let flights = limits
                .in_flight
                .iter()
                .map(|it| format!("{} in flight", it.max));
            let words: Vec<String> = rates.chain(flights).collect();
            self.summary
                .insert(format!("{part} limits"), words.join(", "));
        }
        if let (Some(_), Some(lists)) = (&limiting.addresses, &parsed.addresses) {
            let words = format!("{} allowed, {} denied", lists.allow.len(), lists.deny.len());
            self.summary.insert(format!("{part} addresses"), words);
        }
    }
}
