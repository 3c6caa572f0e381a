//! Why an app's response is compressed or not, in words.

use crate::compress::{Asker, CompressRules, Denied, Private};

/// What becomes of the response to this request, as far as the request decides it.
pub(super) fn in_words(rules: &CompressRules, asker: &Asker<'_>) -> String {
    match rules.wish(asker).coding() {
        Ok(coding) => format!(
            "{}, if it is one of the types and at least {} bytes long",
            coding.name(),
            rules.min
        ),
        Err(Denied::NotAccepted) => {
            let names: Vec<&str> = rules.codings.iter().map(|coding| coding.name()).collect();
            format!("no: the client accepts none of {}", names.join(", "))
        }
        Err(Denied::Range) => "no: the client asks for a part".to_owned(),
        Err(Denied::OldVersion) => "no: HTTP/1.0".to_owned(),
        Err(Denied::Private) => {
            let why = match rules.private {
                Private::Never => "and `private` is `never`",
                Private::SameOrigin | Private::Always => {
                    "and Sec-Fetch-Site does not say that its own site has sent it"
                }
            };
            format!("no: a browser may have added its credentials by itself, {why} (BREACH)")
        }
    }
}
