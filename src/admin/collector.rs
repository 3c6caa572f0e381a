//! The metrics: reads the lanes of all workers and what else there is to tell, and writes both text formats that Prometheus
//! reads. Names and labels are a promise: docs/reference/metrics.md has them all. Labels come from the configuration and
//! from closed lists, never from a request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Shared;
use super::process::Process;
use crate::message::accept::Coding;
use crate::observe::counts::{BOUNDS, CODES, Count, Histogram, RouteLane, Words};
use crate::snapshot::Snapshot;

/// Requests for which no route was found.
pub(crate) const NO_ROUTE: &str = "(none)";
/// Routes that have no series of their own.
pub(crate) const OTHER_ROUTES: &str = "(other)";

/// The text formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Exposition {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// The one that an `Accept` field prefers; Prometheus text without one.
    pub(super) fn preferred(accept: &str) -> Self {
        let quality = |media: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(media);
                let q = parts.find_map(|part| part.strip_prefix("q="));
                named.then(|| q.map_or(1.0, |q| q.parse().unwrap_or(0.0_f32)))
            });
            ranges.fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics as text.
///
/// # Errors
/// The encoder refuses a value, which none of ours is.
pub(super) fn metrics(shared: &Arc<Shared>, exposition: Exposition) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(Arc::clone(shared))));
    let mut written = String::new();
    match exposition {
        Exposition::Prometheus => prometheus_text::encode(&mut written, &registry)?,
        Exposition::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// Collects what is told now.
#[derive(Debug)]
struct Metrics(Arc<Shared>);

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &*self.0;
        let snapshot = Arc::clone(&shared.snapshots.borrow());
        let mut out = Out(encoder);
        requests(&mut out, &snapshot)?;
        tokens(&mut out, shared, &snapshot)?;
        issuers(&mut out, &snapshot)?;
        upstreams(&mut out, &snapshot)?;
        connections(&mut out, shared, &snapshot)?;
        certificates(&mut out, &snapshot)?;
        compression(&mut out, shared)?;
        limits(&mut out, &snapshot)?;
        gateway(&mut out, shared, &snapshot)?;
        process(&mut out, shared)
    }
}

type Labels = Vec<(&'static str, String)>;

/// The numbers of a family by the values of its labels. What has the same labels is one series.
#[derive(Debug, Default)]
struct Rows<const N: usize>(BTreeMap<[String; N], u64>);

impl<const N: usize> Rows<N> {
    fn add(&mut self, labels: [&str; N], count: u64) {
        *self.0.entry(labels.map(str::to_owned)).or_default() += count;
    }
}

/// Writes families. One that has no series is left out.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn counters<const N: usize>(
        &mut self,
        (name, help): (&str, &str),
        labels: [&'static str; N],
        rows: Rows<N>,
    ) -> fmt::Result {
        if rows.0.is_empty() {
            return Ok(());
        }
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Counter)?;
        for (values, count) in rows.0 {
            let set: Labels = labels.into_iter().zip(values).collect();
            let mut metric = family.encode_family(&set)?;
            metric.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, about: (&str, &str), count: u64) -> fmt::Result {
        let (name, help) = about;
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, u64, u64>(&count, None)
    }

    fn gauges(
        &mut self,
        (name, help): (&str, &str),
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Gauge)?;
        rows.try_for_each(|(set, value)| family.encode_family(&set)?.encode_gauge(&value))
    }

    fn gauge(&mut self, (name, help): (&str, &str), value: f64) -> fmt::Result {
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Gauge)?;
        family.encode_gauge(&value)
    }

    fn histograms(
        &mut self,
        (name, help): (&str, &str),
        label: &'static str,
        rows: BTreeMap<String, Histogram>,
    ) -> fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (value, histogram) in rows {
            let set: Labels = vec![(label, value)];
            encode_histogram(family.encode_family(&set)?, &histogram)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "the bounds are few and small")]
fn encode_histogram(mut metric: MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let bounds = BOUNDS.into_iter().map(|bound| bound as f64 / 1e9);
    let bounds = bounds.chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
    metric.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)
}

/// What requests have in common with those of other routes.
fn requests(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let counts = &snapshot.counts;
    let own = counts.routes();
    let mut routes: Vec<(&str, Vec<&RouteLane>)> = own
        .iter()
        .map(|(name, lanes)| (name.as_str(), lanes.all().collect()))
        .collect();
    let workers = counts.of_workers.all();
    routes.push((NO_ROUTE, workers.map(|worker| &worker.no_route).collect()));
    if counts.folded() > 0 {
        routes.push((OTHER_ROUTES, counts.other.all().collect()));
    }
    let (mut codes, mut refused, mut reported) = Default::default();
    let (mut received, mut sent, mut took) = <(Rows<1>, Rows<1>, BTreeMap<_, _>)>::default();
    for (route, lanes) in routes {
        let mut histogram = Histogram::default();
        for lane in lanes {
            for (code, count) in CODES.iter().zip(&lane.codes) {
                Rows::<2>::add(&mut codes, [route, code], count.get());
            }
            histogram.add(&lane.took);
            received.add([route], lane.received.get());
            sent.add([route], lane.sent.get());
            add_words(&mut refused, route, &lane.refused);
            add_words(&mut reported, route, &lane.would_refuse);
        }
        took.insert(route.to_owned(), histogram);
    }
    let about = (
        "portcullis_requests",
        "Requests that have ended, by the class of their status.",
    );
    out.counters(about, ["route", "code"], codes)?;
    let about = (
        "portcullis_request_duration_seconds",
        "Time from a request's head to the end of its response, without tunnels and streams.",
    );
    out.histograms(about, "route", took)?;
    let of_workers = |of: fn(&crate::observe::counts::WorkerLane) -> &Count| {
        let all = counts.of_workers.all().map(|lane| of(lane).get());
        float(all.fold(0, u64::wrapping_add))
    };
    let about = (
        "portcullis_requests_in_flight",
        "Requests that have begun and not ended, tunnels among them.",
    );
    out.gauge(about, of_workers(|lane| &lane.in_flight))?;
    let about = ("portcullis_tunnels_open", "Open tunnels (WebSocket).");
    out.gauge(about, of_workers(|lane| &lane.tunnels))?;
    let about = ("portcullis_request_bytes", "Bytes of request bodies.");
    out.counters(about, ["route"], received)?;
    let about = ("portcullis_response_bytes", "Bytes of response bodies.");
    out.counters(about, ["route"], sent)?;
    let about = (
        "portcullis_refused",
        "Requests that the gateway refused, and responses that broke off, by reason code.",
    );
    out.counters(about, ["route", "reason"], refused)?;
    let about = (
        "portcullis_would_refuse",
        "Requests that would be refused without `enforce: report`, by reason code.",
    );
    out.counters(about, ["route", "reason"], reported)?;
    let about = (
        "portcullis_metrics_routes_folded",
        "Routes that are counted together as (other), for want of `metrics.routes`.",
    );
    out.gauge(about, float(counts.folded() as u64))
}

fn add_words(rows: &mut Rows<2>, of: &str, words: &Words) {
    for (word, count) in words.all() {
        rows.add([of, word], count);
    }
}

fn tokens(out: &mut Out<'_>, shared: &Shared, snapshot: &Snapshot) -> fmt::Result {
    let mut results = Rows::<2>::default();
    for (verifier, lanes) in snapshot.counts.verifiers() {
        for lane in lanes.all() {
            results.add([&verifier, "remembered"], lane.remembered.get());
            results.add([&verifier, "verified"], lane.verified.get());
            add_words(&mut results, &verifier, &lane.refused);
        }
    }
    let (mut held, mut evicted) = (0, 0);
    for worker in shared.observer.workers() {
        add_words(&mut results, NO_ROUTE, worker.remembered.unchosen());
        let of_worker = worker.remembered.held();
        held += of_worker.0;
        evicted += of_worker.1;
    }
    let about = (
        "portcullis_tokens",
        "Tokens of requests: found among the remembered ones, verified, or refused for a reason.",
    );
    out.counters(about, ["verifier", "result"], results)?;
    let about = (
        "portcullis_remembered_tokens",
        "Verified tokens that are remembered.",
    );
    out.gauge(about, float(held))?;
    let about = (
        "portcullis_remembered_token_evictions",
        "Remembered tokens that gave way to others.",
    );
    out.counter(about, evicted)?;
    if snapshot.tokens.is_none() {
        return Ok(());
    }
    let (mut logins, mut refreshes) = <(Rows<1>, Rows<1>)>::default();
    for (rows, good) in [(&mut logins, "good"), (&mut refreshes, "good")] {
        rows.add([good], 0);
    }
    for lane in snapshot.counts.of_workers.all() {
        for (word, count) in lane.logins.all() {
            logins.add([word], count);
        }
        for (word, count) in lane.refreshes.all() {
            refreshes.add([word], count);
        }
    }
    let about = (
        "portcullis_token_logins",
        "Logins at the token service, good ones and those refused for a reason.",
    );
    out.counters(about, ["result"], logins)?;
    let about = (
        "portcullis_token_refreshes",
        "Refreshes at the token service, good ones and those refused for a reason.",
    );
    out.counters(about, ["result"], refreshes)
}

fn issuers(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (mut keys, mut succeeded, mut expire) = (Vec::new(), Vec::new(), Vec::new());
    let mut fetches = Rows::<2>::default();
    for (settings, verifier) in &snapshot.verifiers {
        let Some(remote) = verifier.remote() else {
            continue;
        };
        let label = || vec![("verifier", settings.name.clone())];
        keys.push((label(), float(remote.names().len() as u64)));
        if let Some(fetched) = remote.current() {
            succeeded.push((label(), seconds(fetched.at)));
            let lasts = remote.good_until(&fetched).duration_since(fetched.since);
            expire.push((label(), seconds(fetched.at + lasts)));
        }
        for (result, count) in remote.outcomes() {
            fetches.add([&settings.name, result], count);
        }
    }
    out.gauges(("portcullis_issuer_keys", "Keys of an issuer."), keys)?;
    let about = (
        "portcullis_issuer_last_success_timestamp_seconds",
        "When an issuer's keys were fetched last.",
    );
    out.gauges(about, succeeded)?;
    let about = (
        "portcullis_issuer_keys_expire_timestamp_seconds",
        "When an issuer's keys are no longer used, unless they are fetched before.",
    );
    out.gauges(about, expire)?;
    let about = (
        "portcullis_issuer_fetches",
        "Fetches of an issuer's keys; those that a token asked for too soon are suppressed.",
    );
    out.counters(about, ["verifier", "result"], fetches)
}

fn upstreams(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (mut requests, mut failures) = <(Rows<3>, Rows<3>)>::default();
    let (mut retries, mut queued) = <(Rows<2>, Rows<2>)>::default();
    let (mut up, mut connections, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    let mut ejections = Rows::<2>::default();
    let mut first_bytes = BTreeMap::new();
    for upstream in &snapshot.upstreams {
        let name = upstream.name.as_str();
        let mut first_byte = Histogram::default();
        for lane in upstream.counts().all() {
            first_byte.add(&lane.first_byte);
            add_words(&mut retries, name, &lane.retries);
            add_words(&mut queued, name, &lane.queued);
        }
        first_bytes.insert(name.to_owned(), first_byte);
        let label = || vec![("upstream", name.to_owned())];
        waiting.push((label(), float(upstream.held() as u64)));
        for server in upstream.servers() {
            let is_up = f64::from(u8::from(server.is_up));
            let label = || {
                vec![
                    ("upstream", name.to_owned()),
                    ("server", server.name.clone()),
                ]
            };
            up.push((label(), is_up));
            for (state, count) in [("idle", server.idle), ("busy", server.busy)] {
                let state = ("state", state.to_owned());
                connections.push(([label(), vec![state]].concat(), float(count)));
            }
            for (code, count) in &server.codes {
                requests.add([name, &server.name, code], *count);
            }
            for (reason, count) in &server.failures {
                failures.add([name, &server.name, reason], *count);
            }
            ejections.add([name, &server.name], server.ejections);
        }
    }
    let about = (
        "portcullis_upstream_requests",
        "Responses of a server, by the class of their status; each try counts.",
    );
    out.counters(about, ["upstream", "server", "code"], requests)?;
    let about = (
        "portcullis_upstream_failures",
        "Tries that a server did not answer, by reason.",
    );
    out.counters(about, ["upstream", "server", "reason"], failures)?;
    let about = (
        "portcullis_upstream_first_byte_seconds",
        "Time from a request's head to the head of the app's response.",
    );
    out.histograms(about, "upstream", first_bytes)?;
    let about = (
        "portcullis_upstream_server_up",
        "Whether a server gets requests: 0 while it is taken out.",
    );
    out.gauges(about, up)?;
    let about = (
        "portcullis_upstream_connections",
        "Connections to a server, idle or in use.",
    );
    out.gauges(about, connections)?;
    let about = (
        "portcullis_upstream_retries",
        "Requests that were sent again, and those that were not because the budget was spent.",
    );
    out.counters(about, ["upstream", "result"], retries)?;
    let about = (
        "portcullis_upstream_queued",
        "Requests that waited for a server, by what became of them.",
    );
    out.counters(about, ["upstream", "result"], queued)?;
    let about = (
        "portcullis_upstream_queue_length",
        "Requests that wait for a server now.",
    );
    out.gauges(about, waiting)?;
    let about = (
        "portcullis_upstream_ejections",
        "How often a server was taken out after failures.",
    );
    out.counters(about, ["upstream", "server"], ejections)
}

fn connections(out: &mut Out<'_>, shared: &Shared, snapshot: &Snapshot) -> fmt::Result {
    let (mut accepted, mut refused) = <(Rows<1>, Rows<2>)>::default();
    let mut handshakes = Rows::<2>::default();
    let mut open = Vec::new();
    for (listener, lanes) in snapshot.counts.listeners() {
        let sum = |of: fn(&crate::observe::counts::ListenerLane) -> &Count| {
            lanes.all().map(|lane| of(lane).get()).sum::<u64>()
        };
        // Those that have ended first, or one that ends meanwhile would be less than none.
        let closed = sum(|lane| &lane.closed);
        let all = sum(|lane| &lane.connections);
        let label = vec![("listener", listener.clone())];
        open.push((label, float(all.saturating_sub(closed))));
        accepted.add([&listener], all);
        for lane in lanes.all() {
            add_words(&mut refused, &listener, &lane.refused);
            add_words(&mut handshakes, &listener, &lane.handshakes);
        }
    }
    let about = (
        "portcullis_connections_open",
        "Open connections of clients.",
    );
    out.gauges(about, open)?;
    let about = (
        "portcullis_connections",
        "Connections of clients that were accepted.",
    );
    out.counters(about, ["listener"], accepted)?;
    let about = (
        "portcullis_connections_refused",
        "Connections that were closed before their first request, by reason.",
    );
    out.counters(about, ["listener", "reason"], refused)?;
    let about = (
        "portcullis_tls_handshakes",
        "TLS handshakes, good ones and those that failed for a reason.",
    );
    out.counters(about, ["listener", "result"], handshakes)?;
    let about = (
        "portcullis_worker_stall_seconds",
        "The longest time in the last minute in which a worker did not turn.",
    );
    let stalls = shared.health.stalls(Instant::now());
    let stalls = stalls.into_iter().enumerate();
    let rows = stalls.map(|(at, stall)| (vec![("worker", at.to_string())], stall.as_secs_f64()));
    out.gauges(about, rows)
}

fn certificates(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let mut ends: BTreeMap<(String, String), SystemTime> = BTreeMap::new();
    for listener in &snapshot.listeners {
        let Some(tls) = &listener.tls else { continue };
        for (name, end) in tls.certificates() {
            // Of several for one name the first to end is told.
            let known = ends.entry((listener.address.to_string(), name));
            let known = known.or_insert(end);
            *known = (*known).min(end);
        }
    }
    let about = (
        "portcullis_certificate_not_after_timestamp_seconds",
        "When a certificate ends.",
    );
    let rows = ends.into_iter().map(|((listener, name), end)| {
        let label = vec![("listener", listener), ("name", name)];
        (label, seconds(end))
    });
    out.gauges(about, rows)?;
    let mut orders = Rows::<2>::default();
    for ((directory, outcome), count) in snapshot.counts.orders() {
        orders.add([&directory, outcome], count);
    }
    let about = (
        "portcullis_acme_orders",
        "Orders of certificates, by directory and outcome.",
    );
    out.counters(about, ["directory", "outcome"], orders)
}

fn compression(out: &mut Out<'_>, shared: &Shared) -> fmt::Result {
    let (mut bytes, mut busy) = <(Rows<2>, Rows<1>)>::default();
    for worker in shared.observer.workers() {
        for coding in Coding::ALL {
            if let Some(counts) = worker.encoders.counts(coding) {
                bytes.add([coding.name(), "in"], counts.before.get());
                bytes.add([coding.name(), "out"], counts.after.get());
                busy.add([coding.name()], counts.busy.get());
            }
        }
    }
    let about = (
        "portcullis_encoded_bytes",
        "Bytes of apps' responses before and after compression.",
    );
    out.counters(about, ["coding", "side"], bytes)?;
    let about = (
        "portcullis_encoders_busy",
        "Responses that were not compressed because too many were.",
    );
    out.counters(about, ["coding"], busy)
}

fn limits(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    // A limit of `defaults` is one for all routes.
    let mut seen = BTreeMap::new();
    let limits = snapshot.routes.iter().filter_map(|it| it.limits.as_ref());
    for (id, refused, evicted, in_flight) in limits.flat_map(|limits| limits.numbers()) {
        let route = id.route.as_deref().unwrap_or("(defaults)");
        let key = (route.to_owned(), id.name.clone(), id.by.clone());
        seen.entry(key).or_insert((refused, evicted, in_flight));
    }
    let (mut refusals, mut evictions) = <(Rows<2>, Rows<2>)>::default();
    let mut in_flights: BTreeMap<[String; 2], u64> = BTreeMap::new();
    for ((route, limit, _), (refused, evicted, in_flight)) in seen {
        refusals.add([&route, &limit], refused);
        if let Some(evicted) = evicted {
            evictions.add([&route, &limit], evicted);
        }
        if let Some(in_flight) = in_flight {
            *in_flights.entry([route, limit]).or_default() += in_flight;
        }
    }
    let about = (
        "portcullis_limit_refused",
        "Requests that were refused for a limit.",
    );
    out.counters(about, ["route", "limit"], refusals)?;
    let about = (
        "portcullis_limit_evictions",
        "Clients of a limit that gave way to others before they were at rest.",
    );
    out.counters(about, ["route", "limit"], evictions)?;
    let about = (
        "portcullis_limit_in_flight",
        "Requests in flight that a limit counts.",
    );
    let rows = in_flights.into_iter().map(|([route, limit], count)| {
        let label = vec![("route", route), ("limit", limit)];
        (label, float(count))
    });
    out.gauges(about, rows)
}

fn gateway(out: &mut Out<'_>, shared: &Shared, snapshot: &Snapshot) -> fmt::Result {
    let totals = shared.history.totals();
    let about = (
        "portcullis_config_last_reload_successful",
        "Whether the configuration was valid when it was read last.",
    );
    out.gauge(about, f64::from(u8::from(totals.is_good)))?;
    let about = (
        "portcullis_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was read.",
    );
    out.gauge(about, totals.good_at.map_or(0.0, seconds))?;
    let mut reloads = Rows::<1>::default();
    reloads.add(["good"], totals.good);
    reloads.add(["refused"], totals.refused);
    let about = ("portcullis_config_reloads", "Reloads, by result.");
    out.counters(about, ["result"], reloads)?;
    let mut lost = Rows::<1>::default();
    let log = snapshot.access_log.as_ref();
    let before = snapshot.counts.lost_lines.load(Ordering::Relaxed);
    lost.add(["access"], before + log.map_or(0, |log| log.dropped()));
    lost.add(["gateway"], shared.losses.count());
    let about = (
        "portcullis_log_lines_dropped",
        "Lines of a log that were lost because their reader is too slow.",
    );
    out.counters(about, ["log"], lost)?;
    let about = ("portcullis_build_info", "The version that runs.");
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    out.gauges(about, [(version, 1.0)])
}

fn process(out: &mut Out<'_>, shared: &Shared) -> fmt::Result {
    let process = Process::read();
    if let Some(cpu) = process.cpu {
        let about = ("process_cpu_seconds", "Processor time of the process.");
        let (name, help) = about;
        let mut family = (out.0).encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, f64, u64>(&cpu.as_secs_f64(), None)?;
    }
    for (name, help, value) in [
        (
            "process_open_fds",
            "File descriptors that are open.",
            process.open_fds,
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            process.max_fds,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory.",
            process.virtual_bytes,
        ),
        (
            "process_resident_memory_bytes",
            "Memory that is in use.",
            process.resident_bytes,
        ),
        ("process_threads", "Threads.", process.threads),
    ] {
        if let Some(value) = value {
            out.gauge((name, help), float(value))?;
        }
    }
    let about = ("process_start_time_seconds", "When the process started.");
    out.gauge(about, seconds(shared.started))
}

/// A number as it is shown.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats in both formats"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// A moment in seconds since 1970.
fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since: Duration| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for (accept, expected) in [
            ("", Exposition::Prometheus),
            ("*/*", Exposition::Prometheus),
            ("text/plain", Exposition::Prometheus),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Exposition::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.9",
                Exposition::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Exposition::Prometheus),
            ("application/openmetrics-text;q=x", Exposition::Prometheus),
        ] {
            assert_eq!(Exposition::preferred(accept), expected, "{accept}");
        }
    }
}
