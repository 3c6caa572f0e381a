//! What an app says to the gateway, and not to the client: `X-Sendfile` and `X-Accel-*`. What follows from it is decided
//! elsewhere; no client ever sees it.

use http::{HeaderName, HeaderValue};

/// `X-Accel-Redirect`: the file that is sent in place of the response, as a path that the configuration maps.
pub(crate) static ACCEL_REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");
/// `X-Sendfile`: the same as a path of the file system.
pub(crate) static SENDFILE: HeaderName = HeaderName::from_static("x-sendfile");
/// `X-Accel-Buffering: no`: the response is passed on as it comes.
static ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The fields of a response that are for the gateway. Most have none.
#[derive(Debug, Default)]
pub(crate) struct Orders(Vec<(HeaderName, HeaderValue)>);

impl Orders {
    /// Adds a field.
    pub(super) fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// All values of a field.
    pub(crate) fn all<'o>(&'o self, name: &HeaderName) -> impl Iterator<Item = &'o HeaderValue> {
        let fields = self.0.iter();
        fields.filter_map(move |(known, value)| (known == name).then_some(value))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the response is not to be buffered.
    pub(super) fn forbid_buffering(&self) -> bool {
        !self.is_empty()
            && (self.all(&ACCEL_BUFFERING))
                .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"no"))
    }
}

/// Whether a field of this name is for the gateway alone.
pub(super) fn is_order(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-', b'a', b'c', b'c', b'e', b'l', b'-', ..] => true,
        [b'x', b'-', b's', rest @ ..] => matches!(rest, b"endfile" | b"endfile-type"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(fields: &[(&'static str, &'static str)]) -> Orders {
        let mut orders = Orders::default();
        for (name, value) in fields {
            orders.add(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        orders
    }

    #[test]
    fn these_fields_are_for_the_gateway() {
        for name in [
            "x-accel-redirect",
            "x-accel-expires",
            "x-accel-buffering",
            "x-accel-limit-rate",
            "x-accel-charset",
            "x-sendfile",
            "x-sendfile-type",
        ] {
            assert!(is_order(name), "{name}");
        }
        for name in [
            "x-accelerate",
            "x-sendfiles",
            "x-send",
            "accel-redirect",
            "x-",
            "x",
        ] {
            assert!(!is_order(name), "{name}");
        }
    }

    #[test]
    fn only_no_forbids_buffering() {
        assert!(orders(&[("x-accel-buffering", " No ")]).forbid_buffering());
        assert!(!orders(&[("x-accel-buffering", "yes")]).forbid_buffering());
        assert!(!orders(&[("x-accel-redirect", "no")]).forbid_buffering());
        let both = orders(&[("x-sendfile", "/a"), ("x-sendfile", "/b")]);
        assert_eq!(both.all(&SENDFILE).count(), 2);
    }
}
