//! `portcullis demo`: shows the gateway at work on a machine with nothing else installed. Creates a certificate and
//! two users, starts a sample app, prints what to try, then runs the gateway as `portcullis run` does. The gateway
//! itself knows nothing of the demo.

mod place;
mod text;

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use self::place::{Addresses, Place, is_the_demos};
use self::text::{Told, instructions};
use super::cert::local::{LocalCa, LocalFault, LocalName};
use super::guide::{Guide, Link};
use super::tokens::{
    Ended, directory, make_directory_of, now_in_millis, service, users_file, write,
};
use super::{bad, failed, load, refused, sample_app};
use crate::auth::hash_password;
use crate::config::ConfigErrors;
use crate::tokens::{User, alone};
use crate::{RunError, clock};

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis demo
  portcullis demo --port 9090 --dir /tmp/try

In a clone of the repository it serves the gateway.yaml there, with -c FILE any other; elsewhere it
brings its own files along, and takes other ports where the usual ones are taken.

Exit codes: 0 ended by a signal, 1 it cannot start, 2 wrong arguments.")]
pub(super) struct DemoArguments {
    /// The directory of its files, which are kept; a temporary directory by default.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The port of the page; 8080, or the next free one, by default.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// Runs the demo: exits with 0 where it was ended by a signal, 1 where it cannot start.
pub(super) fn command(arguments: DemoArguments, given: Option<PathBuf>) -> ExitCode {
    let place = match (given, arguments.dir, arguments.port) {
        (Some(config), None, None) => Place::of(config),
        (Some(_), ..) => {
            return bad(
                "`--dir` and `--port` are for the demo's own files, not for those of -c FILE",
            );
        }
        (None, dir, port) => Place::find(dir, port),
    };
    match place.and_then(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DemoError::Refused(errors) | DemoError::Run(RunError::Config(errors))) => {
            refused(&errors);
            ExitCode::FAILURE
        }
        Err(error) => failed(error),
    }
}

/// The lifetime of the printed token.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// The stem of the certificate's files.
const CERTIFICATE: &str = "demo";
/// The lifetime of the certificate.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// The age at which it is replaced, so that the demo never starts with one about to expire.
const CERTIFICATE_RENEWAL: Duration = Duration::from_hours(20 * 24);
/// The users who can sign in, and the role of each.
const USERS: [(&str, &str); 2] = [("alice", "clerk"), ("bob", "admin")];

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Another program listens on a port of the configuration.
    #[error(
        "another program listens on {0} (a second demo?); `portcullis demo --port 8081` uses files and ports of its own"
    )]
    Taken(SocketAddr),
    /// The requested port is not available.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// An existing configuration defines the ports itself.
    #[error("{} exists already, and says the ports itself: edit it, or leave --port out", .0.display())]
    HasPorts(PathBuf),
    /// The sample app could not be started.
    #[error("cannot start the sample app: {0}")]
    App(#[source] io::Error),
    /// A file of the demo could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The certificate could not be created.
    #[error("cannot create the demo's certificate: {0}")]
    Certificate(#[from] LocalFault),
    /// The configuration does not exist; nothing was created.
    #[error("there is no {}: `portcullis demo` without -c brings its own", .0.display())]
    NoConfiguration(PathBuf),
    /// The operating system returned no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The configuration has errors.
    #[error("{0}")]
    Refused(ConfigErrors),
    /// The configuration lacks something that the demo needs.
    #[error("{0}")]
    Config(String),
    /// The users, the key or the token could not be created.
    #[error("{0}")]
    Tokens(String),
    /// The gateway did not start.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<Ended> for DemoError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Refused(errors) => Self::Refused(errors),
            Ended::Config(why) => Self::Config(why),
            Ended::Failed(why) => Self::Tokens(why),
        }
    }
}

/// A user who can sign in, as printed.
struct Printed {
    name: &'static str,
    password: String,
    roles: &'static str,
}

/// Runs the gateway on a configuration with a sample app behind it, until SIGTERM, SIGQUIT or SIGINT.
///
/// The certificate and its key are kept in `certs/` beside the configuration; users, signing keys and sessions where
/// it says. The passwords are new at every start.
fn demo(mut place: Place) -> Result<(), DemoError> {
    let config = place.config.clone();
    ensure_certificate(&folder_of(&config, "certs")?, clock::now())?;
    let loaded = load(&config, &[]).map_err(DemoError::Refused)?;
    let addresses = Addresses::of(&loaded.snapshot);
    // Before any password changes: a second demo must not change the passwords of the first.
    let app = match place.release() {
        Some(app) => app,
        None => TcpListener::bind(addresses.app).map_err(|error| {
            if error.kind() == ErrorKind::AddrInUse {
                DemoError::Taken(addresses.app)
            } else {
                DemoError::App(error)
            }
        })?,
    };
    addresses.are_free()?;
    let users = ensure_users(&config)?;
    // A token that was issued before the users were written would not be valid for them.
    let token = first_token(&config, clock::now())?;
    let code = password()?;
    let written = fs::read_to_string(&config).unwrap_or_default();
    let is_guided = is_the_demos(&written) && Guide::has_route(&loaded.snapshot);
    let (http, https) = (addresses.page(), addresses.secure_page());
    let text = instructions(&Told {
        config: &config,
        notes: &place.notes,
        http: &http,
        https: &https,
        code: is_guided.then_some(&code),
        users: &users,
        token: &token,
    });
    let [alice, _] = users;
    let guide = if is_guided {
        let link = Link::new(code, alice.name, alice.password, addresses.http);
        Guide::new(&config, link)
    } else {
        Guide::silent()
    };
    sample_app::start(app, guide).map_err(DemoError::App)?;

    let on_ready = move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!(%error, "cannot print what to try");
        }
    };
    crate::run(
        &config,
        crate::RunOptions {
            on_ready: Some(Box::new(on_ready)),
        },
    )?;
    Ok(())
}

/// A directory beside `config`; created if it does not exist.
fn folder_of(config: &Path, name: &str) -> Result<PathBuf, DemoError> {
    let directory = directory(config).join(name);
    fs::create_dir_all(&directory).map_err(|source| file_error(&directory, source))?;
    Ok(directory)
}

fn file_error(path: &Path, source: io::Error) -> DemoError {
    DemoError::File {
        path: path.to_owned(),
        source,
    }
}

/// Writes the demo's users to the users' file, with new passwords; other users are not changed.
fn ensure_users(config: &Path) -> Result<[Printed; 2], DemoError> {
    let [alice, bob] = USERS.map(|(name, roles)| -> Result<_, DemoError> {
        let password = password()?;
        let user = User {
            password: Some(hash_password(&password).map_err(DemoError::Tokens)?),
            active: true,
            // Sessions that were opened with an earlier password have ended.
            since: now_in_millis(),
            more: Map::from_iter([("roles".to_owned(), Value::from(vec![roles]))]),
        };
        let printed = Printed {
            name,
            password,
            roles,
        };
        Ok((printed, user))
    });
    let ((alice, her), (bob, his)) = (alice?, bob?);
    let file = users_file(&*service(config)?)?;
    make_directory_of(&file).map_err(|source| file_error(directory(&file), source))?;
    let written = alone(&file, || {
        Ok((|| {
            let mut users = service(config)?.users().clone();
            users.put(alice.name, her);
            users.put(bob.name, his);
            write(&file, &users)
        })())
    });
    written.map_err(|source| file_error(&file, source))??;
    Ok([alice, bob])
}

/// An access token for the first user, signed with the gateway's key, which is created if there is none.
fn first_token(config: &Path, now: SystemTime) -> Result<String, DemoError> {
    let mut tokens = service(config)?;
    if let Some(key) = tokens.missing_key(now).map_err(DemoError::Tokens)? {
        let keys = &tokens.settings().keys;
        key.write(keys).map_err(|source| file_error(keys, source))?;
        tokens = service(config)?;
    }
    let [(alice, _), _] = USERS;
    tokens
        .issue(alice, Map::new(), TOKEN_LIFETIME, now)
        .map_err(DemoError::Tokens)
}

/// Creates `demo.pem` and `demo.key`, signed by the CA of `portcullis cert local`, unless both exist and are recent enough.
fn ensure_certificate(certs: &Path, now: SystemTime) -> Result<(), DemoError> {
    let ca = LocalCa::open(certs, now)?;
    let fresh = |file: &Path| {
        let made = fs::metadata(file)
            .and_then(|metadata| metadata.modified())
            .ok();
        // A file with a date in the future has no age, and is replaced.
        let age = made.and_then(|made| now.duration_since(made).ok());
        age.is_some_and(|age| age < CERTIFICATE_RENEWAL)
    };
    if ca.has_made(CERTIFICATE)
        && ["pem", "key"]
            .iter()
            .all(|kind| fresh(&certs.join(format!("{CERTIFICATE}.{kind}"))))
    {
        return Ok(());
    }
    let names = [
        LocalName::Dns("localhost".to_owned()),
        LocalName::Address(Ipv4Addr::LOCALHOST.into()),
        LocalName::Address(Ipv6Addr::LOCALHOST.into()),
    ];
    ca.issue(CERTIFICATE, &names, CERTIFICATE_LIFETIME, now, true)?;
    Ok(())
}

/// A random password of 80 bits, without letters that look alike: `k7dm-2xwq-p9fa-t4hz`.
fn password() -> Result<String, DemoError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(DemoError::Random)?;
    let mut password = String::with_capacity(19);
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 && place % 4 == 0 {
            password.push('-');
        }
        // 256 is a multiple of 32: no letter is likelier than another.
        password.extend(
            LETTERS
                .get(usize::from(byte % 32))
                .map(|&letter| char::from(letter)),
        );
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_without_a_configuration_is_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let refused = Place::of(directory.path().join("gateway.yaml"));
        assert!(matches!(refused, Err(DemoError::NoConfiguration(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, two) = (password().unwrap(), password().unwrap());
        assert_eq!(one.len(), 19);
        assert!(one.split('-').all(|group| group.len() == 4), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn its_users_are_made_anew_and_all_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("gateway.yaml");
        let text = "listeners: [{address: 127.0.0.1:8080}]\n\
            tokens: {keys: data/keys/, users: data/users.yaml, claims: {roles: \"{user.roles}\"}}\n\
            state: data/\n\
            routes: [{path: /*, respond: {status: 200}, auth: tokens}]\n";
        fs::write(&config, text).unwrap();
        let file = directory.path().join("data/users.yaml");

        let before = now_in_millis();
        let [alice, bob] = ensure_users(&config).unwrap();
        assert_eq!((alice.name, bob.name), ("alice", "bob"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        let mut users = service(&config).unwrap().users().clone();
        let known = users.active("bob").unwrap();
        assert!(known.since >= before);
        assert_eq!(known.more["roles"], serde_json::json!(["admin"]));
        let hash = known.password.clone().unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");

        users.put("carol", User::default());
        fs::write(&file, users.write().unwrap()).unwrap();
        let [again, _] = ensure_users(&config).unwrap();
        assert_ne!(again.password, alice.password);
        let users = service(&config).unwrap().users().clone();
        assert_ne!(users.active("bob").unwrap().password, Some(hash));
        assert_eq!(users.get("carol"), Some(&User::default()));

        let now = clock::now();
        let token = first_token(&config, now).unwrap();
        let keys = || fs::read_dir(directory.path().join("data/keys")).unwrap();
        assert_eq!(keys().count(), 1);
        assert_ne!(first_token(&config, now).unwrap(), token);
        assert_eq!(keys().count(), 1);

        // An entry that cannot be read is not changed, and neither is a file that is not a users' file.
        fs::write(&file, "carol: 1\nbob: 2\n").unwrap();
        ensure_users(&config).unwrap();
        let written = fs::read_to_string(&file).unwrap();
        assert!(written.starts_with("carol: 1\n"), "{written}");
        let users = written.lines().filter(|line| !line.starts_with(' '));
        assert_eq!(users.count(), 3, "{written}");
        fs::write(&file, "carol\n").unwrap();
        assert!(matches!(ensure_users(&config), Err(DemoError::Refused(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "carol\n");
    }

    #[test]
    fn the_certificate_is_kept_while_young_and_made_anew_when_old_or_alone() {
        let certs = tempfile::tempdir().unwrap();
        let (pem, key) = (certs.path().join("demo.pem"), certs.path().join("demo.key"));
        let now = clock::now() + Duration::from_mins(1);
        let made = |now| {
            ensure_certificate(certs.path(), now).unwrap();
            (
                fs::read_to_string(&pem).unwrap(),
                fs::read_to_string(&key).unwrap(),
            )
        };
        let first = made(now);
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(made(now + CERTIFICATE_RENEWAL / 2), first);
        let second = made(now + CERTIFICATE_RENEWAL);
        assert_ne!(second, first);
        fs::remove_file(&key).unwrap();
        assert_ne!(made(now), second);
    }
}
