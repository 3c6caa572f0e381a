//! `state`: where it is kept, and the key that seals it.

use super::Compiler;
use crate::config::parsed;
use crate::state::{Servers, State, StateAt};

impl Compiler<'_> {
    /// Where state is kept, and the key that seals it. `None` where there is none, or an error was reported.
    pub(super) fn state(&mut self, parsed: Option<&parsed::State>) -> Option<State> {
        let redis = match parsed? {
            parsed::State::Directory(directory) => {
                return Some(State {
                    at: StateAt::Directory(directory.value.clone()),
                    key: None,
                });
            }
            parsed::State::Redis(redis) => redis,
        };
        let ca = match &redis.ca {
            None => None,
            Some(ca) => {
                let pem = self.roots(ca)?;
                if redis
                    .urls
                    .iter()
                    .any(|url| url.value.starts_with("redis://"))
                {
                    let problem = "`ca` means something only with rediss://";
                    self.errors.at(ca.place, problem);
                    return None;
                }
                Some(pem)
            }
        };
        let password = redis
            .password
            .as_ref()
            .map(|password| String::from_utf8_lossy(password.expose()).into_owned());
        let servers = Servers {
            urls: redis.urls.iter().map(|url| url.value.clone()).collect(),
            username: redis
                .username
                .as_ref()
                .map(|username| username.value.clone()),
            password,
            ca,
        };
        if let Err((at, why)) = servers.check() {
            let place = redis.urls.get(at).map(|url| url.place).unwrap_or_default();
            let problem = format!("this is no URL of Redis: {why}");
            self.errors.at(place, problem);
            return None;
        }
        (!servers.urls.is_empty()).then(|| State {
            at: StateAt::Servers(servers),
            key: redis.key.clone(),
        })
    }
}
