//! `tls.acme`: which certificates are ordered, from where, and the cells that they are served from.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Compiler;
use crate::config::parsed::{self, HostPattern, Spanned};
use crate::config::place::Place;
use crate::config::source::why;
use crate::net::tls::Challenges;
use crate::snapshot::{
    Acme, AcmeDirectory, AcmeSettings, ChallengeKind, DnsHook, Eab, Hmac, Managed,
};
use crate::state::State;

/// The certificates of all listeners while they are compiled.
#[derive(Default)]
pub(super) struct Orders {
    state: Option<State>,
    challenges: Arc<Challenges>,
    managed: Vec<Arc<Managed>>,
    /// The index of each name's certificate, and the name's place.
    names: HashMap<String, (usize, Place)>,
}

impl Orders {
    /// The certificates, where there are any.
    pub(super) fn finish(self) -> Option<Arc<Acme>> {
        let (state, managed) = (self.state?, self.managed);
        (!managed.is_empty()).then(|| {
            Arc::new(Acme {
                state,
                managed,
                challenges: self.challenges,
            })
        })
    }

    /// Where challenges are answered.
    pub(super) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }
}

impl Compiler<'_> {
    /// What is ordered for the listeners of a configuration; nothing yet.
    pub(super) fn orders(&self, state: Option<State>) -> Orders {
        let earlier = self.previous.and_then(|previous| previous.acme.as_ref());
        Orders {
            state,
            challenges: earlier.map_or_else(Arc::default, |acme| Arc::clone(&acme.challenges)),
            ..Orders::default()
        }
    }

    /// The certificates that a listener orders. `None` where an error was reported.
    pub(super) fn acme(
        &mut self,
        parsed: &parsed::Acme,
        gateway: &parsed::Gateway,
        orders: &mut Orders,
    ) -> Option<Vec<Arc<Managed>>> {
        let before = self.errors.count();
        self.needs_state(parsed.place, gateway);
        let settings = self.acme_settings(parsed, gateway);
        let groups = match &parsed.domains {
            Some(groups) => groups.clone(),
            None => self.hosts_of_routes(parsed.place, gateway),
        };
        if parsed.broken || self.errors.count() != before {
            return None;
        }
        let settings = Arc::new(settings?);
        self.usual_ports(parsed.place, &settings.challenges, gateway);
        let mut all = Vec::with_capacity(groups.len());
        let mut here = HashMap::new();
        for group in &groups {
            for name in group {
                if let Some(earlier) = here.insert(name.value.clone(), name.place) {
                    self.twice(name, earlier);
                }
            }
        }
        if self.errors.count() != before {
            return None;
        }
        for group in &groups {
            all.extend(self.managed(group, &settings, orders));
        }
        (self.errors.count() == before).then_some(all)
    }

    /// Directories look for answers on ports 80 and 443; a port mapping may lead from there, which only its owner knows.
    fn usual_ports(
        &mut self,
        place: Place,
        challenges: &[ChallengeKind],
        gateway: &parsed::Gateway,
    ) {
        let is_at = |listener: &parsed::Listener, port: u16| match listener.address.value {
            parsed::ListenAddress::Tcp(address) => address.port() == port,
            parsed::ListenAddress::Unix(_) => false,
            // systemd knows the port.
            parsed::ListenAddress::Inherited(_) => true,
        };
        let reached = challenges.iter().any(|kind| {
            let mut listeners = gateway.listeners.iter();
            match kind {
                // No port is needed.
                ChallengeKind::Dns01 => true,
                ChallengeKind::Http01 => listeners.any(|it| it.tls.is_none() && is_at(it, 80)),
                ChallengeKind::TlsAlpn01 => listeners.any(|it| {
                    let acme = it.tls.as_ref().and_then(|tls| tls.acme.as_ref());
                    acme.is_some() && is_at(it, 443)
                }),
            }
        });
        if !reached {
            let warning = "neither a plain listener on port 80 nor a TLS listener on port 443 answers these \
                           challenges: a directory finds the gateway only where these ports lead to it";
            self.errors.warn(place, warning);
        }
    }

    fn needs_state(&mut self, place: Place, gateway: &parsed::Gateway) {
        if self.errors.is_unread("state") {
            return;
        }
        match &gateway.state {
            Some(parsed::State::Directory(_)) => {}
            None => {
                self.errors
                    .at(
                        place,
                        "`acme` needs `state`, where keys and certificates are kept",
                    )
                    .hint("add `state: data/`");
            }
            Some(parsed::State::Redis(redis)) if redis.key.is_none() => {
                self.errors
                    .at(
                        place,
                        "`acme` keeps private keys on Redis, which need `state.key` to seal them",
                    )
                    .hint("state: {redis: ..., key: \"${STATE_KEY}\"}; openssl rand -base64 32 makes one, the same for all gateways");
            }
            Some(parsed::State::Redis(_)) => {}
        }
    }

    fn acme_settings(
        &mut self,
        parsed: &parsed::Acme,
        gateway: &parsed::Gateway,
    ) -> Option<AcmeSettings> {
        let before = self.errors.count();
        let directories = self.directories(parsed);
        let dns = match &parsed.dns {
            Some(dns) => Some(self.dns(dns)?),
            None => None,
        };
        // A listener with an error may be the plain one.
        let plain = |listener: &parsed::Listener| listener.tls.is_none() || listener.broken;
        let is_plain = gateway.listeners.iter().any(plain) || self.errors.is_unread("listeners");
        let challenges = match &parsed.challenges {
            None => ChallengeKind::ALL
                .into_iter()
                .filter(|kind| match kind {
                    ChallengeKind::TlsAlpn01 => true,
                    ChallengeKind::Http01 => is_plain,
                    ChallengeKind::Dns01 => dns.is_some(),
                })
                .collect(),
            Some(written) => {
                let mut kinds: Vec<ChallengeKind> = Vec::new();
                for kind in written {
                    if kinds.contains(&kind.value) {
                        let problem = format!("`{}` is here twice", kind.value.name());
                        self.errors.at(kind.place, problem);
                    } else if kind.value == ChallengeKind::Http01 && !is_plain {
                        self.errors
                            .at(kind.place, "`http-01` is answered on plain listeners, and there is none")
                            .hint("add a listener without `tls`, such as {address: 0.0.0.0:80, redirect_to_https: true}");
                    }
                    if kind.value == ChallengeKind::Dns01 && dns.is_none() {
                        self.errors
                            .at(kind.place, "`dns-01` needs `dns`, who changes the DNS")
                            .hint("add dns: {hook: ./dns-hook}");
                    }
                    kinds.push(kind.value);
                }
                kinds
            }
        };
        let names = parsed.domains.iter().flatten().flatten();
        let mut stars = names.filter(|name| name.value.starts_with("*."));
        if let Some(star) = stars
            .next()
            .filter(|_| !challenges.contains(&ChallengeKind::Dns01))
        {
            let problem = format!("{} has a star, which only `dns-01` proves", star.shown());
            self.errors.at(star.place, problem).hint(match dns {
                Some(_) => "add `dns-01` to `challenges`",
                None => "add dns: {hook: ./dns-hook}, or list the names",
            });
        }
        (self.errors.count() == before).then(|| AcmeSettings {
            directories,
            email: parsed.email.as_ref().map(|email| email.value.clone()),
            challenges,
            dns,
            profile: parsed.profile.as_ref().map(|it| it.value.clone()),
            key: parsed.key.value,
        })
    }

    fn directories(&mut self, parsed: &parsed::Acme) -> Vec<AcmeDirectory> {
        let ca = parsed
            .ca
            .as_ref()
            .and_then(|ca| self.roots(ca))
            .map(Arc::new);
        let all = || parsed.directories.iter().map(|it| &it.value);
        if let Some(ca) = &parsed.ca
            && all().all(|directory| directory.word.is_some())
        {
            self.errors
                .at(
                    ca.place,
                    "`ca` is for a directory with a URL, and there is none",
                )
                .hint("directories that have a word are trusted by the system's roots");
        }
        let needs = all().filter(|directory| directory.needs_eab);
        let needs: Vec<&str> = needs.filter_map(|directory| directory.word).collect();
        match (&parsed.eab, needs.as_slice()) {
            (None, [word, ..]) => {
                let place = parsed.directories.first().map(|it| it.place);
                self.errors
                    .at(
                        place.unwrap_or_default(),
                        format!("`{word}` needs `eab`, the external account"),
                    )
                    .hint("its page shows a key id and an HMAC key: eab: {kid: ..., hmac: ...}");
            }
            (Some(eab), [_, other, ..]) => {
                let problem = format!("`eab` is of one directory, and `{other}` needs another one");
                self.errors.at(eab.kid.place, problem);
            }
            (_, _) => {}
        }
        let eab = parsed.eab.as_ref().map(|eab| {
            let hmac = String::from_utf8_lossy(eab.hmac.value.expose());
            let hmac = URL_SAFE_NO_PAD.decode(hmac.trim_end_matches('='));
            Eab {
                kid: eab.kid.value.clone(),
                hmac: Hmac::new(hmac.unwrap_or_default()),
            }
        });
        let mut directories: Vec<AcmeDirectory> = Vec::new();
        for directory in &parsed.directories {
            let Spanned { value, place, .. } = directory;
            if directories.iter().any(|known| known.url == value.url) {
                self.errors.at(*place, "this directory is here twice");
                continue;
            }
            let is_url = value.word.is_none();
            // With a word that needs it, it is that one's.
            let bound = value.needs_eab || is_url && needs.is_empty();
            directories.push(AcmeDirectory {
                url: value.url.clone(),
                staging: value.staging.clone(),
                ca: ca.clone().filter(|_| is_url),
                eab: eab.clone().filter(|_| bound),
            });
        }
        directories
    }

    /// The program that changes the DNS. That it can be called is found out now, not at a renewal.
    fn dns(&mut self, parsed: &parsed::AcmeDns) -> Option<DnsHook> {
        let hook = &parsed.hook;
        let path = hook.value.clone();
        let found = self
            .loader
            .patiently(&hook.value, move || std::fs::metadata(path));
        let problem = match found {
            Ok(there) if !there.is_file() => "it is no file".to_owned(),
            Ok(there) if there.permissions().mode() & 0o111 == 0 => {
                format!("it is not executable: chmod +x {}", hook.value.display())
            }
            Ok(_) => {
                return Some(DnsHook {
                    hook: hook.value.clone(),
                    wait: parsed.wait.value,
                });
            }
            Err(error) => why(&error),
        };
        let problem = format!(
            "the hook `{}` cannot be called: {problem}",
            hook.value.display()
        );
        self.errors.at(hook.place, problem);
        None
    }

    /// The exact hosts of all routes, each with a certificate of its own.
    fn hosts_of_routes(
        &mut self,
        place: Place,
        gateway: &parsed::Gateway,
    ) -> Vec<Vec<Spanned<String>>> {
        let mut names: Vec<Spanned<String>> = Vec::new();
        for host in gateway.routes.iter().flat_map(|route| &route.hosts) {
            let HostPattern::Exact(name) = &host.value else {
                continue;
            };
            let orderable = name
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_err()
                && name != "localhost"
                && !name.ends_with(".localhost");
            if orderable && !names.iter().any(|known| known.value == *name) {
                names.push(Spanned {
                    value: name.clone(),
                    place: host.place,
                    private: host.private,
                });
            }
        }
        let broken = gateway.routes.iter().any(|route| route.broken);
        if names.is_empty() && !broken && !self.errors.is_unread("routes") {
            self.errors
                .at(
                    place,
                    "there is no name to order a certificate for: no route has a `host`",
                )
                .hint("add `domains: [www.example.com]`, or `host` to the routes");
        }
        names.into_iter().map(|name| vec![name]).collect()
    }

    fn twice(&mut self, name: &Spanned<String>, earlier: Place) {
        let problem = format!(
            "{} is in two certificates; it was at {} first",
            name.shown(),
            self.errors.name(earlier)
        );
        self.errors
            .at(name.place, problem)
            .hint("one certificate for a name; an inner list shares one");
    }

    /// One certificate. Listeners that name the same one share it.
    fn managed(
        &mut self,
        group: &[Spanned<String>],
        settings: &Arc<AcmeSettings>,
        orders: &mut Orders,
    ) -> Option<Arc<Managed>> {
        let names: Vec<String> = group.iter().map(|name| name.value.clone()).collect();
        let first = names.first()?;
        if let Some((at, _)) = orders.names.get(first)
            && let Some(known) = orders.managed.get(*at)
            && known.names == names
        {
            if known.settings == *settings {
                return Some(Arc::clone(known));
            }
            let problem =
                format!("{first} is ordered in two ways: another listener's `acme` differs");
            self.errors
                .at(group.first()?.place, problem)
                .hint("write the same in both, or leave the name out of one");
            return None;
        }
        let taken = |name: &&Spanned<String>| orders.names.contains_key(&name.value);
        if let Some(name) = group.iter().find(taken) {
            let earlier = orders.names.get(&name.value).map(|(_, place)| *place);
            self.twice(name, earlier.unwrap_or_default());
            return None;
        }
        let earlier = self.previous.and_then(|previous| previous.acme.as_ref());
        let mut earlier = earlier.iter().flat_map(|acme| &acme.managed);
        let slot = earlier
            .find(|known| known.names.first() == Some(first))
            .map_or_else(Arc::default, |known| Arc::clone(&known.slot));
        let managed = Arc::new(Managed {
            names,
            settings: Arc::clone(settings),
            slot,
            counts: Arc::clone(&self.counts),
        });
        let at = orders.managed.len();
        orders.managed.push(Arc::clone(&managed));
        for name in group {
            orders.names.insert(name.value.clone(), (at, name.place));
        }
        Some(managed)
    }
}
