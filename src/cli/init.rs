//! `portcullis init`: writes a first `gateway.yaml` for what stands behind the gateway, with policy tests. It overwrites
//! nothing, and what it wrote is an ordinary file from then on.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::tokens::{Ended, exit};
use super::user;

/// What stands behind the gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Kind {
    /// Django: what collectstatic wrote, and the app.
    Django,
    /// FastAPI, or any other API with pages of its own.
    Fastapi,
    /// Node: public files, and the app.
    Node,
    /// A folder of files.
    Static,
    /// A single-page app and its API.
    Spa,
    /// Any app.
    Proxy,
}

/// The arguments of `init`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  portcullis init django
  portcullis init spa --root dist --app http://127.0.0.1:3000 --host www.example.com
  printf '%s\\n' \"$PASSWORD\" | portcullis init fastapi --user alice
  portcullis init proxy --issuer https://sso.example.com/realms/main --audience orders-api

Without a KIND, it is detected from the files in the directory. Nothing is overwritten.

Exit codes: 0 written, 1 not written, 2 wrong arguments.")]
pub(super) struct InitArguments {
    /// What stands behind the gateway.
    kind: Option<Kind>,
    /// The app [default: where the framework listens by itself].
    #[arg(long, value_name = "URL")]
    app: Option<String>,
    /// The directory of the static files [default: where the framework puts them].
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// The name of a public site, which is served on ports 80 and 443 with a certificate by ACME. Without it, the gateway
    /// listens on 127.0.0.1:8080.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The provider of the tokens. Without it, the gateway issues them itself.
    #[arg(long, value_name = "URL", requires = "audience")]
    issuer: Option<String>,
    /// The audience that the provider's tokens must have.
    #[arg(long, value_name = "NAME", requires = "issuer")]
    audience: Option<String>,
    /// The first user who may log in; prompts for the password on a terminal, or reads one line from a pipe.
    #[arg(long, value_name = "NAME", conflicts_with = "issuer")]
    user: Option<String>,
}

/// Where the gateway's own tokens keep what they need.
const DATA: &str = "data";

/// Writes the configuration: exits with 0 where done, 1 where not.
pub(super) fn init(arguments: &InitArguments, config: &Path) -> ExitCode {
    exit(write(arguments, config))
}

fn write(arguments: &InitArguments, config: &Path) -> Result<String, Ended> {
    let folder = config
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let kind = arguments.kind.unwrap_or_else(|| found_in(folder));
    let plan = Plan::of(kind, arguments)?;
    if fs::symlink_metadata(config).is_ok() {
        return Err(exists(config));
    }
    let first = match &arguments.user {
        Some(_) if kind == Kind::Static => {
            let why = "`--user` is for those who log in, and a static site asks for no token";
            return Err(Ended::Config(why.to_owned()));
        }
        Some(name) => Some(user::first(name)?),
        None => None,
    };
    let mut said = String::new();
    if plan.issues() {
        made(&folder.join(DATA), 0o700)?;
    }
    // A root that is not there is an error, and a build that is yet to run makes it.
    if !plan.root.is_empty() && made(&folder.join(plan.root), 0o755)? {
        said.push_str(&format!("{} is made, and is empty\n", plan.root));
    }
    let file = OpenOptions::new().write(true).create_new(true).open(config);
    match file.and_then(|mut file| file.write_all(plan.text().as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(config)),
        Err(error) => return Err(unwritten(config, &error)),
        Ok(()) => {}
    }
    said.push_str(&format!(
        "{} is written, for {}\n",
        config.display(),
        plan.words()
    ));
    if let Some(first) = first {
        said.push_str(&user::add(first, config)?);
    }
    said.push_str(&plan.what_is_next(config, arguments.user.is_some()));
    Ok(said)
}

/// Makes a directory, and whether it was not there.
fn made(directory: &Path, mode: u32) -> Result<bool, Ended> {
    if directory.is_dir() {
        return Ok(false);
    }
    let made = DirBuilder::new()
        .mode(mode)
        .recursive(true)
        .create(directory);
    made.map_err(|error| unwritten(directory, &error))?;
    Ok(true)
}

fn exists(config: &Path) -> Ended {
    Ended::Failed(format!(
        "{} exists already, and nothing is overwritten; `-c FILE` writes another",
        config.display()
    ))
}

fn unwritten(path: &Path, error: &io::Error) -> Ended {
    Ended::Failed(format!("`{}`: {error}", path.display()))
}

/// The kind whose files are there.
fn found_in(folder: &Path) -> Kind {
    let has = |name: &str| folder.join(name).exists();
    let requires = |word: &str| {
        ["requirements.txt", "pyproject.toml"].iter().any(|name| {
            fs::read_to_string(folder.join(name))
                .is_ok_and(|text| text.to_lowercase().contains(word))
        })
    };
    match () {
        () if has("manage.py") => Kind::Django,
        () if requires("fastapi") => Kind::Fastapi,
        () if has("vite.config.js") || has("vite.config.ts") || has("dist/index.html") => Kind::Spa,
        () if has("package.json") => Kind::Node,
        () if has("index.html") || has("public/index.html") => Kind::Static,
        () => Kind::Proxy,
    }
}

/// What is going to be written.
#[derive(Debug)]
struct Plan<'a> {
    kind: Kind,
    app: &'a str,
    root: &'a str,
    host: Option<&'a str>,
    issuer: Option<(&'a str, &'a str)>,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// An argument has no meaning here, or could not stand in the file as it is.
    fn of(kind: Kind, given: &'a InitArguments) -> Result<Self, Ended> {
        let unfit = |why: String| Err(Ended::Config(why));
        match kind {
            Kind::Static if given.app.is_some() || given.issuer.is_some() => {
                return unfit(
                    "a static site has no app and no tokens: leave `--app` and `--issuer` out"
                        .to_owned(),
                );
            }
            Kind::Fastapi | Kind::Proxy if given.root.is_some() => {
                return unfit(
                    "only django, node, spa and static have files: leave `--root` out".to_owned(),
                );
            }
            Kind::Django | Kind::Fastapi | Kind::Node | Kind::Static | Kind::Spa | Kind::Proxy => {}
        }
        let (app, root) = match kind {
            Kind::Django => ("http://127.0.0.1:8000", "./staticfiles"),
            Kind::Node => ("http://127.0.0.1:3000", "./public"),
            Kind::Spa => ("http://127.0.0.1:8000", "./dist"),
            Kind::Static => ("", "./public"),
            Kind::Fastapi | Kind::Proxy => ("http://127.0.0.1:8000", ""),
        };
        let issuer = given.issuer.as_deref().zip(given.audience.as_deref());
        let plan = Self {
            kind,
            app: given.app.as_deref().unwrap_or(app),
            root: given.root.as_deref().unwrap_or(root),
            host: given.host.as_deref(),
            issuer,
        };
        let texts = [plan.app, plan.root].into_iter().chain(plan.host);
        for text in texts.chain(
            issuer
                .iter()
                .flat_map(|(issuer, audience)| [*issuer, *audience]),
        ) {
            // Quoted in double quotes below; `$` begins a variable.
            if text
                .contains(|letter: char| letter.is_control() || matches!(letter, '"' | '\\' | '$'))
            {
                return unfit(format!("{text:?} cannot stand in the file as it is"));
            }
        }
        if let Some(host) = plan.host
            && (host.contains([':', '/', '*', ' ']) || !host.contains('.'))
        {
            return unfit(format!(
                "`--host` is a name such as www.example.com, and {host:?} is none"
            ));
        }
        Ok(plan)
    }

    /// Whether there are tokens of the gateway's own.
    fn issues(&self) -> bool {
        self.kind != Kind::Static && self.issuer.is_none()
    }

    fn words(&self) -> &'static str {
        match self.kind {
            Kind::Django => "Django",
            Kind::Fastapi => "FastAPI",
            Kind::Node => "Node",
            Kind::Static => "a folder of files",
            Kind::Spa => "a single-page app",
            Kind::Proxy => "an app",
        }
    }

    fn text(&self) -> String {
        let Self { app, root, .. } = self;
        let mut text = format!(
            "# Portcullis in front of {}. `portcullis check` reads it, `portcullis run` serves it, and what is saved while it\n\
             # runs takes effect at once. Paths are relative to this file. The most specific route wins, not the first.\n\n",
            self.words()
        );
        text.push_str(match self.host {
            Some(_) => {
                "listeners:\n  \
                 - {address: \"[::]:80\", redirect_to_https: true}\n  \
                 - {address: \"[::]:443\", tls: {acme: {}}}      # certificates for each `host` below, by Let's Encrypt\n"
            }
            None => {
                "listeners:\n  \
                 - {address: \"127.0.0.1:8080\"}\n    \
                 # In public: `address: \"[::]:443\"`, `tls: {acme: {}}`, and a `host` on each route.\n"
            }
        });
        if self.host.is_some() || self.issues() {
            text.push_str(&format!(
                "state: {DATA}/                 # certificates, sessions\n"
            ));
        }
        let verifier = match self.issuer {
            Some((issuer, audience)) => {
                text.push_str(&format!("\njwt:\n  sso:\n    issuer: \"{issuer}\"      # its keys are discovered\n    audience: \"{audience}\"\n"));
                "sso"
            }
            None => "tokens",
        };
        if self.issues() {
            text.push_str(&format!("\ntokens:                       # POST /api/token/: a name and a password buy an access and a refresh token\n  \
                 keys: {DATA}/keys/            # the first start makes one\n  \
                 users: {DATA}/users.yaml      # `portcullis user add NAME`\n"));
        }
        if self.kind != Kind::Static {
            text.push_str(&format!("\nupstreams:\n  app: {{servers: [\"{app}\"]}}\n"));
        }
        let host = self
            .host
            .map(|host| format!("host: \"{host}\", "))
            .unwrap_or_default();
        text.push_str("\nroutes:\n");
        let mut route = |what: &str| {
            text.push_str(&format!("  - {{{host}{what}\n"));
        };
        match self.kind {
            Kind::Django => {
                route(&format!(
                    "path: /static/*, static: \"{root}\", auth: none}}      # what collectstatic wrote"
                ));
                route("path: /*, proxy: app, auth: none}      # Django decides by its sessions");
            }
            Kind::Node => {
                route(&format!(
                    "path: /static/*, static: \"{root}\", auth: none}}"
                ));
                route(
                    "path: /*, proxy: app, auth: none}      # the app decides by its own sessions",
                );
            }
            Kind::Fastapi | Kind::Proxy => {
                route("path: /*, proxy: app, auth: none}      # pages, by the app's own rules");
            }
            Kind::Spa => route(&format!(
                "path: /*, static: {{root: \"{root}\", fallback: /index.html}}, auth: none}}"
            )),
            Kind::Static => route(&format!("path: /*, static: \"{root}\", auth: none}}")),
        }
        if self.kind != Kind::Static {
            text.push_str("  # Without a valid token: 401. The app reads X-User-Id; a client's own never gets through.\n");
            text.push_str(&format!("  - {{{host}path: /api/*, proxy: app, auth: {{jwt: {verifier}, forward: {{X-User-Id: sub}}}}}}\n"));
        }
        self.tests(&mut text);
        text
    }

    /// Three policy tests, which every later edit must pass.
    fn tests(&self, text: &mut String) {
        let at = match self.host {
            Some(host) => format!("https://{host}"),
            None => String::new(),
        };
        text.push_str("\ntests:                        # what no edit of this file may break; each reload runs them\n");
        let mut test = |request: &str, path: &str, rest: &str| {
            text.push_str(&format!(
                "  - {{request: \"{request} {at}{path}\", {rest}}}\n"
            ));
        };
        match self.kind {
            Kind::Static => {
                test("GET", "/.git/config", "expect: {status: 404}");
                test("GET", "/.env", "expect: {status: 404}");
                test("POST", "/", "expect: {status: 405}");
            }
            Kind::Spa => test("GET", "/.env", "expect: {status: 404}"),
            Kind::Django | Kind::Node | Kind::Fastapi | Kind::Proxy => {
                test("GET", "/", "expect: {upstream: app}");
            }
        }
        if self.kind != Kind::Static {
            test(
                "GET",
                "/api/orders",
                "expect: {status: 401, reason: token_missing}",
            );
            test(
                "GET",
                "/api/orders",
                "headers: {X-User-Id: root}, claims: {sub: \"7\"}, expect: {upstream: app, headers: {X-User-Id: \"7\"}}",
            );
        }
    }

    fn what_is_next(&self, config: &Path, has_user: bool) -> String {
        let option = match config == Path::new(super::CONFIG) {
            true => String::new(),
            false => format!(" -c {}", config.display()),
        };
        let user = match self.issues() && !has_user {
            true => format!("  portcullis user add NAME{option}\n"),
            false => String::new(),
        };
        format!("Next:\n{user}  portcullis check{option}\n  portcullis run{option}\n")
    }
}
