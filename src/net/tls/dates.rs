//! A certificate's validity period (RFC 5280 section 4.1.2.5) and warnings about it. Clients enforce it, not this.

use std::time::{Duration, SystemTime};

use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// How long before its expiry a certificate causes a warning.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A certificate's validity period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dates {
    begins: SystemTime,
    ends: SystemTime,
}

impl Dates {
    /// The period of a certificate in DER; `None` where it cannot be parsed.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self {
            begins: time(validity.not_before)?,
            ends: time(validity.not_after)?,
        })
    }

    /// The last moment of validity.
    pub(super) fn ends(&self) -> SystemTime {
        self.ends
    }

    /// A warning where it has expired, expires within a week (or within the last third of a lifetime under three
    /// weeks), or is not valid yet.
    pub(super) fn warning(&self, now: SystemTime) -> Option<String> {
        if now < self.begins {
            let begins = httpdate::fmt_http_date(self.begins);
            return Some(format!("is not valid before {begins}"));
        }
        let ends = httpdate::fmt_http_date(self.ends);
        let Ok(left) = self.ends.duration_since(now) else {
            return Some(format!("expired on {ends}"));
        };
        let life = self.ends.duration_since(self.begins).unwrap_or_default();
        (left < SOON.min(life / 3)).then(|| format!("expires on {ends}"))
    }
}

/// A moment of a certificate; `None` where the clock cannot represent it.
pub(super) fn time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_warns_in_its_last_week_and_a_short_one_in_its_last_third() {
        const DAY: u64 = 24 * 60 * 60;
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY);
        let long = Dates {
            begins: at(100),
            ends: at(190),
        };
        let short = Dates {
            begins: at(100),
            ends: at(106),
        };
        for (dates, day, said) in [
            (long, 99, Some("is not valid before Sat, 11 Apr")),
            (long, 100, None),
            (long, 183, None),
            (long, 184, Some("expires on Fri, 10 Jul")),
            (long, 191, Some("expired on Fri, 10 Jul 1970")),
            (short, 104, None),
            (short, 105, Some("expires on")),
        ] {
            let warning = dates.warning(at(day));
            match said {
                None => assert_eq!(warning, None, "{day}"),
                Some(said) => assert!(warning.clone().unwrap().starts_with(said), "{warning:?}"),
            }
        }
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        for year in [1990, 2049, 2050, 2099] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(1970, 1, 2);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let made = params
                .self_signed(&rcgen::KeyPair::generate().unwrap())
                .unwrap();
            let dates = Dates::of(made.der()).unwrap();
            let ends = httpdate::fmt_http_date(dates.ends());
            assert!(
                ends.ends_with(&format!("01 Jan {year} 00:00:00 GMT")),
                "{ends}"
            );
        }
        assert!(Dates::of(b"nonsense").is_none());
    }
}
