//! `portcullis demo`: the main job on a machine with nothing else installed. Makes a certificate
//! and two users, starts a sample app, and says what to try, then runs the gateway as
//! `portcullis run` does. The gateway itself knows nothing of the demo.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Map, Value};

use super::sample_app;
use super::tokens::{Ended, now_in_millis, service, users_file, write};
use crate::clock;
use crate::tokens::{User, alone, hash_password, write_private};

/// The plain listener of the demo's `gateway.yaml`.
const HTTP: &str = "http://127.0.0.1:8080";
/// Its TLS listener, by a name that the certificate carries.
const HTTPS: &str = "https://localhost:8443";

/// How long the printed token is good.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// How long the certificate is good.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// When a new one is made, so that the demo never starts with one about to end.
const CERTIFICATE_RENEWAL: Duration = Duration::from_hours(20 * 24);
/// Who can sign in, and the roles of each.
const USERS: [(&str, &str); 2] = [("alice", "clerk"), ("bob", "admin")];

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Something else listens where the sample app should.
    #[error(
        "the demo's sample app needs {}, and another program listens there (a second demo?)",
        sample_app::ADDRESS
    )]
    PortTaken,
    /// The sample app could not be started.
    #[error("cannot start the sample app on {address}: {0}", address = sample_app::ADDRESS)]
    App(#[source] io::Error),
    /// A file of the demo could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate was made.
    #[error("cannot make the demo's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// There is nothing to run; nothing was made.
    #[error("there is no {}: run the demo in the repository's folder, or give -c FILE", .0.display())]
    NoConfiguration(PathBuf),
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The configuration is refused.
    #[error("{0}")]
    Config(String),
    /// No users, no key or no token was made.
    #[error("{0}")]
    Tokens(String),
    /// The gateway did not start.
    #[error(transparent)]
    Run(#[from] crate::RunError),
}

impl From<Ended> for DemoError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Config(why) => Self::Config(why),
            Ended::Failed(why) => Self::Tokens(why),
        }
    }
}

/// Someone who can sign in, as the text says it.
struct Printed {
    name: &'static str,
    password: String,
    roles: &'static str,
}

/// Runs the gateway on `config` with a sample app behind it, until SIGTERM, SIGQUIT or SIGINT.
///
/// The certificate and its key are kept in `certs/` beside `config`; users, signing keys and sessions
/// where `config` says. The passwords are new at every start.
pub(crate) fn demo(config: &Path) -> Result<(), DemoError> {
    if !config.is_file() {
        return Err(DemoError::NoConfiguration(config.to_owned()));
    }
    // First of all: a second demo must not take the passwords from under the first.
    let listener = TcpListener::bind(sample_app::ADDRESS).map_err(|error| {
        if error.kind() == ErrorKind::AddrInUse {
            DemoError::PortTaken
        } else {
            DemoError::App(error)
        }
    })?;
    ensure_certificate(&folder_of(config, "certs")?, clock::now())?;
    let users = ensure_users(config)?;
    // A token from before the users would be none of theirs.
    let token = first_token(config, clock::now())?;
    let text = instructions(config, &users, &token);
    sample_app::start(listener).map_err(DemoError::App)?;

    let on_ready = move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!(%error, "cannot print what to try");
        }
    };
    crate::run(
        config,
        crate::RunOptions {
            on_ready: Some(Box::new(on_ready)),
        },
    )?;
    Ok(())
}

/// A folder beside `config`, which is made if it is not there.
fn folder_of(config: &Path, name: &str) -> Result<PathBuf, DemoError> {
    let folder = folder(config).join(name);
    fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
    Ok(folder)
}

fn file_error(path: &Path, source: io::Error) -> DemoError {
    DemoError::File {
        path: path.to_owned(),
        source,
    }
}

/// Puts the demo's users in the file of users, with new passwords; others are left as they are.
fn ensure_users(config: &Path) -> Result<[Printed; 2], DemoError> {
    let [alice, bob] = USERS.map(|(name, roles)| -> Result<_, DemoError> {
        let password = password()?;
        let user = User {
            password: Some(hash_password(&password).map_err(DemoError::Tokens)?),
            active: true,
            // Whoever signed in with an earlier password has no session any more.
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
    let beside = folder(&file);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(beside)
        .map_err(|source| file_error(beside, source))?;
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

/// An access token for the first user, signed with the gateway's key, which is made if there is none.
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

/// The folder of a file, `.` for a bare name.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Makes `demo.pem` and `demo.key`, unless both are there and young enough.
fn ensure_certificate(certs: &Path, now: SystemTime) -> Result<(), DemoError> {
    let (certificate, key) = (certs.join("demo.pem"), certs.join("demo.key"));
    let fresh = |file: &Path| {
        let made = fs::metadata(file)
            .and_then(|metadata| metadata.modified())
            .ok();
        // A file from the future has no age, and is made anew.
        let age = made.and_then(|made| now.duration_since(made).ok());
        age.is_some_and(|age| age < CERTIFICATE_RENEWAL)
    };
    if fresh(&certificate) && fresh(&key) {
        return Ok(());
    }

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Portcullis demo");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today =
        rcgen::date_time_ymd(1970, 1, 1) + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = today;
    params.not_after = today + CERTIFICATE_LIFETIME;
    let pair = KeyPair::generate()?;
    let signed = params.self_signed(&pair)?;
    for (path, text) in [(&key, pair.serialize_pem()), (&certificate, signed.pem())] {
        write_private(path, text.as_bytes()).map_err(|source| file_error(path, source))?;
    }
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

/// What is printed when the gateway is ready: who can sign in, and commands to copy.
fn instructions(config: &Path, users: &[Printed; 2], token: &str) -> String {
    let file = quote(&config.display().to_string());
    let backup = quote(&format!("{}.bak", config.display()));
    let certificate = quote(&join(config, "certs/demo.pem").display().to_string());
    let bearer = "-H \"Authorization: Bearer $TOKEN\"";
    // `-i.bak`, in one word, is what both GNU's and BSD's sed understand.
    let edit = format!("sed -i.bak 's/body: pong/body: edited/' {file}");
    let [alice, _] = users;
    let steps = [
        (
            "Sign in, as the page does: an access and a refresh token",
            vec![format!(
                "curl -i -d 'username={}&password={}' {HTTP}/api/token/",
                alice.name, alice.password
            )],
        ),
        (
            "For what follows, a token for alice, good for an hour",
            vec![format!("export TOKEN={token}")],
        ),
        (
            "A static file: 200",
            vec![format!("curl -i {HTTP}/favicon.svg")],
        ),
        (
            "The app without a token: 401, and the app never hears of it",
            vec![format!("curl -i {HTTP}/api/orders/")],
        ),
        (
            "The app with the token: 200, and it is told who asks (x-user-id)",
            vec![format!("curl -i {bearer} {HTTP}/api/orders/")],
        ),
        (
            "A route for admins, but alice is a clerk: 403",
            vec![format!("curl -i {bearer} {HTTP}/api/admin/")],
        ),
        (
            "The same app over TLS",
            vec![format!(
                "curl -i --cacert {certificate} {bearer} {HTTPS}/api/orders/"
            )],
        ),
        (
            "A live edit: the answer changes, no restart",
            vec![
                format!("curl -w '\\n' {HTTP}/ping"),
                format!("{edit} && sleep 1 && curl -w '\\n' {HTTP}/ping"),
                format!("mv {backup} {file}"),
            ],
        ),
    ];

    let mut text = format!(
        "\nPortcullis serves {file}. Ctrl-C ends the demo.\n\n\
         \x20 Browser   {HTTP}/\n\
         \x20 TLS       {HTTPS}/ (self-signed, the browser will ask)\n"
    );
    for (label, user) in ["Sign in", "or"].iter().zip(users) {
        let Printed {
            name,
            password,
            roles,
        } = user;
        line(
            &mut text,
            &format!("  {label:8}  {name:6} {password}  ({roles})"),
        );
    }
    line(&mut text, "\nTo try in another terminal, in this folder:");
    for (title, commands) in &steps {
        line(&mut text, &format!("\n  {title}"));
        for command in commands {
            line(&mut text, &format!("    {command}"));
        }
    }
    text.push('\n');
    text
}

/// Adds a line.
fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// `name` beside `config`, written as short as the user wrote `config`.
fn join(config: &Path, name: &str) -> PathBuf {
    config
        .parent()
        .map_or_else(|| PathBuf::from(name), |parent| parent.join(name))
}

/// A word for a POSIX shell: as it is where that is safe, else in single quotes.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_without_a_configuration_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let refused = demo(&folder.path().join("gateway.yaml"));
        assert!(matches!(refused, Err(DemoError::NoConfiguration(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_addresses_are_those_of_the_repositorys_gateway_yaml() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.yaml");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(&format!("servers: [http://{}]", sample_app::ADDRESS)));
        assert!(text.contains(&format!(
            "address: {}\n",
            HTTP.trim_start_matches("http://")
        )));
        assert!(text.contains(&HTTPS.replace("https://localhost", "address: 127.0.0.1")));
        assert!(text.contains("body: pong"), "the live edit finds its line");
    }

    #[test]
    fn the_text_shows_every_step_and_names_the_file_as_given() {
        let users = USERS.map(|(name, roles)| Printed {
            name,
            password: format!("password-of-{name}"),
            roles,
        });
        let text = instructions(Path::new("my demo/gateway.yaml"), &users, "a.b.c");
        for needle in [
            "password-of-alice  (clerk)",
            "password-of-bob  (admin)",
            "-d 'username=alice&password=password-of-alice' http://127.0.0.1:8080/api/token/\n",
            "export TOKEN=a.b.c\n",
            "curl -i http://127.0.0.1:8080/api/orders/\n",
            "sed -i.bak 's/body: pong/body: edited/' 'my demo/gateway.yaml' &&",
            "--cacert 'my demo/certs/demo.pem'",
            "curl -w '\\n' http://127.0.0.1:8080/ping\n",
        ] {
            assert!(text.contains(needle), "{needle:?} is not in\n{text}");
        }
    }

    #[track_caller]
    fn check_quote(word: &str, expected: &str) {
        assert_eq!(quote(word), expected, "word {word:?}");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        check_quote("gateway.yaml", "gateway.yaml");
        check_quote("../a/gateway.yaml", "../a/gateway.yaml");
        check_quote("my demo.yaml", "'my demo.yaml'");
        check_quote("it's", r"'it'\''s'");
        check_quote("$(x)", "'$(x)'");
        check_quote("~/x", "'~/x'");
        check_quote("-x", "'-x'");
        check_quote("", "''");
    }

    #[test]
    fn the_folder_of_a_bare_name_is_here() {
        assert_eq!(folder(Path::new("gateway.yaml")), Path::new("."));
        assert_eq!(folder(Path::new("a/gateway.yaml")), Path::new("a"));
        assert_eq!(folder(Path::new("/gateway.yaml")), Path::new("/"));
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
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.yaml");
        let text = "listeners: [{address: 127.0.0.1:8080}]\n\
            tokens: {keys: data/keys/, users: data/users.yaml, claims: {roles: \"{user.roles}\"}}\n\
            state: data/\n\
            routes: [{path: /*, respond: {status: 200}, auth: tokens}]\n";
        fs::write(&config, text).unwrap();
        let file = folder.path().join("data/users.yaml");

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
        let keys = || fs::read_dir(folder.path().join("data/keys")).unwrap();
        assert_eq!(keys().count(), 1);
        assert_ne!(first_token(&config, now).unwrap(), token);
        assert_eq!(keys().count(), 1);

        // Who cannot be read is left as they are; what is no file of users, too.
        fs::write(&file, "carol: 1\nbob: 2\n").unwrap();
        ensure_users(&config).unwrap();
        let written = fs::read_to_string(&file).unwrap();
        assert!(written.starts_with("carol: 1\n"), "{written}");
        let users = written.lines().filter(|line| !line.starts_with(' '));
        assert_eq!(users.count(), 3, "{written}");
        fs::write(&file, "carol\n").unwrap();
        assert!(matches!(ensure_users(&config), Err(DemoError::Config(_))));
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
