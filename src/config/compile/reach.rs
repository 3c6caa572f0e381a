//! What the user that serves can do with the files of the configuration. Root reads them all at the start; after that a
//! reload reads them as that user, and requests do. What would be missing then is said at once, with the remedy.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Compiler;
use crate::config::parsed;
use crate::config::place::Place;
use crate::privilege::{Bar, Need, User, bars};

/// What becomes of it if the user cannot.
#[derive(Clone, Copy, Debug)]
enum Else {
    /// Requests fail: an error.
    Refused,
    /// Something later does, in these words: a warning.
    Later(&'static str),
}

const RELOAD: Else = Else::Later("a reload will be refused, and a renewed file not be read");
const ROTATION: Else = Else::Later("after a rotation it cannot be opened again");
const CONNECT: Else = Else::Later("requests to this upstream will fail");

/// One thing that the user must be able to do.
struct Wanted {
    path: PathBuf,
    need: Need,
    otherwise: Else,
    place: Place,
}

impl Compiler<'_> {
    /// Reports what the user that serves cannot reach. Called when everything has been read, by root alone.
    pub(super) fn reach(&mut self, gateway: &parsed::Gateway) {
        let is_root = rustix::process::geteuid().is_root();
        let (Some(account), Some(user)) = (&gateway.user, self.user.clone()) else {
            return;
        };
        if !is_root || self.previous.is_some() {
            return;
        }
        let mut wanted = self.wanted(gateway);
        // What is said of a directory first is said of it alone.
        wanted.sort_by_key(|wanted| matches!(wanted.otherwise, Else::Later(_)));
        let needs = wanted.iter().map(|it| (it.path.clone(), it.need)).collect();
        let asked = user.clone();
        let passwords = PathBuf::from(super::accounts::USERS);
        let found = (self.loader).patiently(&passwords, move || bars(&asked, needs));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("this process cannot become `{user}`: {error}");
                self.errors.at(account.name.place, problem);
                return;
            }
        };
        // One closed directory is in the way of many files.
        let mut known: HashMap<PathBuf, usize> = HashMap::new();
        let mut said: Vec<(Wanted, Bar, usize)> = Vec::new();
        for (wanted, bar) in wanted.into_iter().zip(found) {
            let Some(bar) = bar else { continue };
            let at = *known.entry(bar.at.clone()).or_insert(said.len());
            match said.get_mut(at) {
                Some((_, _, more)) => *more += 1,
                None => said.push((wanted, bar, 0)),
            }
        }
        for (wanted, bar, more) in said {
            let problem = problem(&user, &wanted, &bar, more);
            let remedy = bar.remedy(&user);
            match wanted.otherwise {
                Else::Refused => self.errors.at(wanted.place, problem).hint(remedy),
                Else::Later(what) => {
                    let warning = format!("{problem}: {what}; {remedy}");
                    self.errors.warn(wanted.place, &warning);
                }
            }
        }
    }

    /// Everything that the user must be able to do.
    fn wanted(&self, gateway: &parsed::Gateway) -> Vec<Wanted> {
        let one = |path: &PathBuf, need, otherwise, place| Wanted {
            path: path.clone(),
            need,
            otherwise,
            place,
        };
        let read = self.loader.files();
        let mut wanted: Vec<Wanted> = (read.iter())
            .map(|path| one(path, Need::Read, RELOAD, self.loader.place_of(path)))
            .collect();
        let roots = gateway
            .routes
            .iter()
            .filter_map(|route| route.files.as_ref())
            .flat_map(|files| &files.roots)
            .map(|root| &root.path)
            .chain((gateway.routes.iter()).flat_map(|it| it.accel.iter().map(|(_, root)| root)));
        wanted.extend(roots.map(|root| one(&root.value, Need::Enter, Else::Refused, root.place)));
        if let Some(parsed::State::Directory(state)) = &gateway.state {
            wanted.push(one(&state.value, Need::Fill, Else::Refused, state.place));
            let database = state.value.join("tokens.redb");
            wanted.push(one(&database, Need::Change, Else::Refused, state.place));
        }
        for (_, upstream) in &gateway.upstreams {
            if let parsed::Buffering::Own(buffer) = &upstream.buffer
                && let Some(spool) = &buffer.spool
            {
                wanted.push(one(&spool.value, Need::Fill, Else::Refused, spool.place));
            }
            wanted.extend(upstream.servers.iter().filter_map(|server| {
                let parsed::Server::Unix(path) = &server.url.value else {
                    return None;
                };
                Some(one(path, Need::Connect, CONNECT, server.url.place))
            }));
        }
        wanted.extend(gateway.routes.iter().filter_map(|route| {
            let proxy = route.app()?;
            let parsed::ProxyTo::Server(parsed::Server::Unix(path)) = &proxy.value else {
                return None;
            };
            Some(one(path, Need::Connect, CONNECT, proxy.place))
        }));
        if let parsed::AccessLog::On { to, .. } = &gateway.log.access
            && let parsed::LogTarget::File(path) = &to.value
        {
            wanted.push(one(path, Need::Change, ROTATION, to.place));
        }
        wanted
    }
}

/// What the user cannot do, in words.
fn problem(user: &User, wanted: &Wanted, bar: &Bar, more: usize) -> String {
    let verb = match bar.need {
        Need::Read => "cannot read",
        Need::Change => "cannot write",
        Need::Enter => "cannot enter",
        Need::Fill => "cannot write in",
        Need::Connect => "cannot connect to",
    };
    let mut problem = format!("`{}`, who serves, {verb} `{}`", user.name, bar.shown());
    if bar.at != wanted.path {
        problem.push_str(&format!(", where `{}` is", wanted.path.display()));
        match more {
            0 => {}
            1 => problem.push_str(", and one more file"),
            more => problem.push_str(&format!(", and {more} more files")),
        }
    }
    problem
}
