//! The page shown to a browser whose navigation is refused: a sentence for visitors. The reason is in the log and in
//! the problem document, for operators and programs.

use crate::message::reject::Reject;
use crate::message::request_id::RequestId;

/// The page's style. It is inline, as the page cannot load a file from a site that refuses; where the configuration's
/// `Content-Security-Policy` forbids it, the page is shown unstyled.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;text-align:center;font:1.0625rem/1.5 system-ui,sans-serif;background:#f6f7f7;color:#1b2423}\
main{padding:2rem;max-width:34rem}\
b{display:block;font-size:4rem;line-height:1;font-weight:600;color:#5c6b68}\
h1{font-size:1.375rem;margin:.75rem 0 .5rem}\
p{margin:0}\
small{display:block;margin-top:1.5rem;color:#5c6b68;overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{background:#111817;color:#e3eae8}b,small{color:#93a29f}}";

/// The page for this refusal.
pub(super) fn page(reject: Reject, id: RequestId) -> String {
    let status = reject.status();
    let title = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    let sentence = sentence(reject);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{number} {title}</title>\n<style>{STYLE}</style>\n\
         <main>\n<b>{number}</b>\n<h1>{title}</h1>\n<p>{sentence}</p>\n<small>Request {id}</small>\n</main>\n</html>\n"
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
        Reject::NoRoute | Reject::FileNotFound => {
            "There is nothing at this address. Please check it, or go back."
        }
        Reject::MethodNotAllowed(_) | Reject::MethodNotServed => {
            "This address cannot be used in this way. Please go back."
        }
        Reject::TokenMissing | Reject::AskDenied { nobody: true } => {
            "You need to sign in to see this page."
        }
        Reject::TokenInvalid(_) => "You are no longer signed in. Please sign in again.",
        Reject::AskDenied { nobody: false } | Reject::Forbidden | Reject::ClaimUnfit => {
            "You are signed in, but this page is not for you. If it should be, please ask whoever runs this site."
        }
        Reject::CertificateMissing => {
            "This page needs a client certificate, and your browser did not send one."
        }
        Reject::CertificateRefused => {
            "This page is not for the client certificate that your browser sent. If it should be, please ask whoever runs this site."
        }
        Reject::RateLimited(_) | Reject::TooManyInFlight { .. } => {
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
