//! `portcullis explain`: what the configuration makes of a request, without serving it.

use std::path::PathBuf;
use std::process::ExitCode;

use http::{HeaderName, HeaderValue, header};

use super::{bad, load, say};
use crate::auth::{Claims, parse_object};
use crate::clock;
use crate::config;
use crate::control::issuers;
use crate::explain::{self, Question};
use crate::snapshot::Snapshot;

/// A request that is refused.
const REFUSED: u8 = 3;

/// What `explain` is asked.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArguments {
    /// The request's method.
    method: String,
    /// A path, or a whole URL.
    #[arg(value_name = "URL-or-path")]
    target: String,
    /// A header of the request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The claims of a token, as JSON, that is taken to be signed rightly.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// Fetch the keys that are at a URL.
    #[arg(long)]
    online: bool,
    /// The configuration.
    #[arg(short, long, default_value = "gateway.yaml", value_name = "FILE")]
    config: PathBuf,
}

/// Says what becomes of a request: 0 where it may pass, 3 where it is refused or nobody here can
/// tell, 2 where the question or the configuration is wrong.
pub(super) fn explain(arguments: &ExplainArguments) -> ExitCode {
    let line = format!("{} {}", arguments.method, arguments.target);
    let (mut request, secure) = match config::request(&line) {
        Ok(request) => request,
        Err(why) => return bad(format!("`{line}` is no request: {why}")),
    };
    for text in &arguments.headers {
        let parsed = text.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else {
            return bad("a header is written -H 'Name: value'");
        };
        if name == header::HOST {
            request.headers_mut().remove(header::HOST);
        }
        request.headers_mut().append(name, value);
    }
    let claims = arguments.claims.as_deref().map(str::as_bytes);
    let claims = match claims.map(parse_object) {
        None => None,
        Some(Ok(claims)) => Some(Claims::new(claims)),
        Some(Err(error)) => return bad(format!("--claims takes a JSON object: {error}")),
    };
    let snapshot = match load(&arguments.config, &[]) {
        Ok(snapshot) => snapshot,
        Err(errors) => return bad(errors),
    };
    if arguments.online {
        if let Err(error) = fetch_keys(&snapshot) {
            return bad(error);
        }
    }
    let decision = explain::explain(
        &snapshot,
        &Question {
            request: &request,
            secure,
            claims: claims.as_ref(),
            now: clock::now(),
        },
    );
    say(&mut std::io::stdout(), &decision.to_string());
    if decision.is_allowed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    }
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
