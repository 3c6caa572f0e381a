//! `portcullis explain`: traces how the configuration would handle a request, without serving it.

use std::io::{stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::{HeaderName, HeaderValue, Request, header};

use super::paint::Paint;
use super::{bad, load, refused, say};
use crate::admin::{as_json, lines_of};
use crate::auth::{Claims, parse_object};
use crate::clock;
use crate::config::{self, Accepted};
use crate::control::issuers;
use crate::explain::{self, Decision, Outcome, Question};
use crate::filesystem;
use crate::net::tls::ShownChain;
use crate::snapshot::Snapshot;

/// The exit code for a request that is refused.
const REFUSED: u8 = 3;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Examples:
  portcullis explain /api/orders/
  portcullis explain POST https://shop.example/api/ -H 'Origin: https://app.example'
  portcullis explain /api/orders/ --token - < token.txt
  portcullis explain /pay/ --certificate till.pem
  portcullis explain /api/admin/ --claims '{\"sub\": \"7\", \"roles\": [\"admin\"]}' --json

Exit codes: 0 allowed, 3 refused or not decided here, 2 wrong configuration or arguments."
)]
pub(super) struct ExplainArguments {
    /// The request's method.
    #[arg(default_value = "GET")]
    method: String,
    /// A path, or a whole URL.
    #[arg(value_name = "URL-or-path")]
    target: String,
    /// A header of the request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A token, sent as `Authorization: Bearer TOKEN`; `-` reads it from standard input.
    #[arg(long, value_name = "TOKEN", conflicts_with = "claims")]
    token: Option<String>,
    /// The claims of a token, as JSON; its signature is taken to be valid.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A certificate that the client shows, PEM or DER, with what it sends besides.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The client's address, or `unix`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: String,
    /// Fetch the keys that are at a URL.
    #[arg(long)]
    online: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Traces a request: exits with 0 where it is allowed, 3 where it is refused or another server has to decide, 2 where
/// the arguments or the configuration are wrong.
pub(super) fn explain(arguments: &ExplainArguments, config: &Path) -> ExitCode {
    let (request, secure) = match request_of(arguments) {
        Ok(request) => request,
        Err(why) => return bad(why),
    };
    let claims = arguments.claims.as_deref().map(str::as_bytes);
    let claims = match claims.map(parse_object) {
        None => None,
        Some(Ok(claims)) => Some(Claims::new(claims)),
        Some(Err(error)) => return bad(format!("--claims takes a JSON object: {error}")),
    };
    let shown = match arguments
        .certificate
        .as_deref()
        .map(certificate_of)
        .transpose()
    {
        Ok(shown) => shown,
        Err(why) => return bad(why),
    };
    let from = match config::client(&arguments.from) {
        Ok(from) => from,
        Err(why) => return bad(format!("--from takes an address: {why}")),
    };
    let loaded = match load(config, &[]) {
        Ok(loaded) => loaded,
        Err(errors) => return refused(&errors),
    };
    if arguments.online {
        if let Err(error) = fetch_keys(&loaded.snapshot) {
            return bad(error);
        }
    }
    let decision = explain::explain(
        &loaded.snapshot,
        &Question {
            request: &request,
            secure,
            claims: claims.as_ref(),
            certificate: shown.as_ref(),
            any_time: false,
            from,
            now: clock::now(),
        },
    );
    let text = if arguments.json {
        format!(
            "{:#}\n",
            as_json(&decision, &loaded.snapshot, &loaded.lines)
        )
    } else {
        as_text(&decision, &loaded, Paint::stdout())
    };
    say(&mut stdout(), &text);
    if decision.is_allowed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    }
}

/// The certificate in a file.
fn certificate_of(path: &Path) -> Result<ShownChain, String> {
    let shown = path.display();
    let file =
        filesystem::read(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    ShownChain::read(&file)
        .map_err(|wrong| format!("`{shown}`: {}; {}", wrong.problem, wrong.remedy_for(path)))
}

/// The request given by the arguments, and whether it comes over TLS.
fn request_of(arguments: &ExplainArguments) -> Result<(Request<()>, Option<bool>), String> {
    let line = format!("{} {}", arguments.method, arguments.target);
    let (mut request, secure) =
        config::request(&line).map_err(|why| format!("`{line}` is not a request: {why}"))?;
    for text in &arguments.headers {
        let parsed = text.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or("a header is written -H 'Name: value'")?;
        if name == header::HOST {
            request.headers_mut().remove(header::HOST);
        }
        request.headers_mut().append(name, value);
    }
    if let Some(token) = &arguments.token {
        let mut line = String::new();
        let token = if token == "-" {
            let read = stdin().read_line(&mut line);
            read.map_err(|error| format!("no token: {error}"))?;
            line.trim()
        } else {
            token
        };
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let value = value.map_err(|_| "--token takes a token, which has no such characters")?;
        request.headers_mut().append(header::AUTHORIZATION, value);
    }
    Ok((request, secure))
}

/// One line per step, its name in the first column; a repeated name is omitted. The lines that decided follow the
/// route.
fn as_text(decision: &Decision, loaded: &Accepted, paint: Paint) -> String {
    let mut text = String::new();
    let mut before = "";
    let mut lines = lines_of(decision, &loaded.snapshot, &loaded.lines);
    let mut step = |name: &'static str, words: &str| {
        let shown = if name == before { "" } else { name };
        let name_ = paint.cyan(shown);
        let space = " ".repeat(10_usize.saturating_sub(shown.len()));
        let words = match (name, &decision.outcome) {
            ("answer", _) if decision.is_allowed() => paint.green(words),
            ("answer", Outcome::Asked | Outcome::Unproven) => paint.yellow(words),
            ("answer", _) => paint.red(words),
            (_, _) => words.into(),
        };
        text.push_str(&format!("{name_}{space} {words}\n"));
        before = name;
    };
    let last = decision.steps().rposition(|(name, _)| name == "route");
    for (at, (name, words)) in decision.steps().enumerate() {
        step(name, words);
        if Some(at) == last {
            for (of, lines) in lines.drain(..) {
                let of = if of == "route" {
                    String::new()
                } else {
                    format!(" ({of})")
                };
                step("lines", &format!("{lines}{of}"));
            }
        }
    }
    text
}

/// Fetches each key set that is at a URL, once.
fn fetch_keys(snapshot: &Snapshot) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for keys in snapshot.verifiers.iter().filter_map(|(_, it)| it.remote()) {
            if keys.fetches() == 0 {
                issuers::fetch_once(keys, &snapshot.dialer).await;
            }
        }
    });
    Ok(())
}
