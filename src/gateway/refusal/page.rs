//! The page shown to a browser whose navigation is refused: a sentence for visitors. The reason is in the log and in
//! the problem document, for operators and programs.

use http::StatusCode;

use crate::message::reject::Reject;
use crate::message::request_id::RequestId;

/// The page's style. It is inline, as the page cannot load a file from a site that refuses; where the configuration's
/// `Content-Security-Policy` forbids it, the page is shown unstyled.
const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#f7f8fa;--glow:#e3e8f4;--card:#fff;--edge:#dfe3ea;--ink:#171b24;--soft:#586073;--mark:#3b5bdb}\
@media(prefers-color-scheme:dark){:root{--paper:#0f1218;--glow:#1b2333;--card:#171b23;--edge:#2a303c;--ink:#e9ecf2;--soft:#9aa3b5;--mark:#8ba3ff}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:radial-gradient(60rem 40rem at 50% -10%,var(--glow),var(--paper));background-color:var(--paper);color:var(--ink);font:1.0625rem/1.6 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}\
main{width:100%;max-width:32rem;padding:2.75rem 2.5rem 2rem;background:var(--card);border:1px solid var(--edge);border-radius:1rem;box-shadow:0 1px 2px #0000000d,0 1.5rem 3rem -1.5rem #00000026}\
b{display:inline-block;padding:.15rem .7rem;border:1px solid;border-radius:2rem;font-size:.875rem;font-weight:600;letter-spacing:.06em;color:var(--mark)}\
h1{margin:1.1rem 0 .5rem;font-size:1.875rem;line-height:1.2;font-weight:650;letter-spacing:-.015em;text-wrap:balance}\
p{margin:0;color:var(--soft);text-wrap:pretty}\
a{display:inline-block;margin-top:1.75rem;padding:.55rem 1.15rem;border-radius:.6rem;background:var(--mark);color:var(--card);font-weight:600;text-decoration:none}\
a:focus-visible{outline:3px solid var(--mark);outline-offset:3px}\
footer{margin-top:2.25rem;padding-top:1.1rem;border-top:1px solid var(--edge);font-size:.8125rem;color:var(--soft)}\
code{font:inherit;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere;user-select:all}\
@media(max-width:30rem){main{padding:2rem 1.5rem 1.5rem}h1{font-size:1.5rem}}\
@media print{body{background:none}main{border:0;box-shadow:none}a{display:none}}";

/// The page for this refusal.
pub(super) fn of(reject: Reject, id: RequestId) -> String {
    page(reject.status(), sentence(reject), id)
}

/// The page: the status, its name, one sentence, and the request's id, by which an operator finds the reason.
pub(super) fn page(status: StatusCode, sentence: &str, id: RequestId) -> String {
    let title = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    // What may have changed in the meantime is tried again at the same address.
    let passes = status.is_server_error() || matches!(number, 408 | 412 | 429);
    let (to, word) = if passes {
        ("", "Try again")
    } else {
        ("/", "Home page")
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n<title>{number} {title}</title>\n<style>{STYLE}</style>\n\
         <main>\n<b>{number}</b>\n<h1>{title}</h1>\n<p>{sentence}</p>\n<a href=\"{to}\">{word}</a>\n<footer>Request <code>{id}</code></footer>\n</main>\n</html>\n"
    )
}

/// The sentence for a visitor, who knows nothing of gateways.
fn sentence(reject: Reject) -> &'static str {
    match reject {
        Reject::BadRequest(_)
        | Reject::BadPath
        | Reject::BadHost
        | Reject::TokenMalformed(_)
        | Reject::UnknownTransferCoding
        | Reject::VersionNotSupported => {
            "Your browser sent a request that this site does not understand."
        }
        Reject::PlainHttp => {
            "This address needs a secure connection. Begin it with https:// and try again."
        }
        Reject::RequestTimeout | Reject::ClientGone => {
            "The request took too long to arrive. Please try again."
        }
        Reject::UriTooLong => "This address is too long.",
        Reject::HeadTooLarge => {
            "Your browser sent more than this site accepts. It may help to delete the cookies of this site."
        }
        Reject::BodyTooLarge(_) => "What you sent is larger than this site accepts.",
        Reject::NoRoute | Reject::FileNotFound | Reject::AccelNotFound => {
            "There is nothing at this address. Please check it, or go back."
        }
        Reject::MethodNotAllowed(_) | Reject::MethodNotServed => {
            "This address cannot be used in this way. Please go back."
        }
        Reject::TokenMissing | Reject::BasicMissing | Reject::AskDenied { nobody: true } => {
            "You need to sign in to see this page."
        }
        Reject::BasicRefused => "The name or the password is wrong. Please try again.",
        Reject::TokenInvalid(_) => "You are no longer signed in. Please sign in again.",
        Reject::AskDenied { nobody: false } | Reject::Forbidden | Reject::ClaimUnfit => {
            "You are signed in, but this page is not for you. If it should be, please ask whoever runs this site."
        }
        Reject::ApiKeyMissing | Reject::ApiKeyRefused | Reject::ApiKeyExpired => {
            "This address is for programs that have a key."
        }
        Reject::CertificateMissing => {
            "This page needs a client certificate, and your browser did not send one."
        }
        Reject::CertificateRefused => {
            "This page is not for the client certificate that your browser sent. If it should be, please ask whoever runs this site."
        }
        Reject::RateLimited(_) | Reject::TooManyInFlight { .. } | Reject::Throttled { .. } => {
            "You sent too many requests in a short time. Please wait a moment and try again."
        }
        Reject::AddressRefused | Reject::OriginRefused | Reject::FileForbidden => {
            "This page is not for you."
        }
        Reject::PreconditionFailed => {
            "This page has changed in the meantime. Please load it again."
        }
        Reject::RangeNotSatisfiable { .. } => "This part of the file does not exist.",
        Reject::KeysMissing
        | Reject::AskFailed
        | Reject::UpstreamBusy
        | Reject::UpstreamUnhealthy(_)
        | Reject::UpstreamUnreachable => {
            "This site is not available at the moment. Please try again in a minute."
        }
        Reject::UpstreamTimeout => {
            "This site took too long to respond. Please try again in a minute."
        }
        Reject::UpstreamInvalid | Reject::LoopDetected | Reject::Internal => {
            "Something went wrong at this site. It is not your fault; please try again later."
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// The demo's `Content-Security-Policy` allows this inline style and no other.
    #[test]
    fn the_demos_policy_allows_this_style() {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let source = format!("'sha256-{}'", STANDARD.encode(hash));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            text.contains(&format!("style-src 'self' {source}")),
            "{source}"
        );
    }
}
