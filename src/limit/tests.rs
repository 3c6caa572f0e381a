//! Tests of a route's limits as a whole; the tables have their own.

use std::net::IpAddr;

use http::uri::PathAndQuery;

use super::*;
use crate::message::path::RequestPath;
use crate::net::addresses::Networks;

fn rule(name: &str, sources: Vec<Source>) -> Rule {
    Rule {
        id: LimitId {
            route: None,
            name: name.to_owned(),
            by: format!("{sources:?}"),
        },
        by: By {
            sources: sources.into(),
            v4: 32,
            v6: 64,
        },
        except: None,
        only_reports: false,
        over: AtomicU64::new(0),
        refused: Arc::default(),
    }
}

fn rate(rule: Rule, burst: u32, start: Instant) -> RateLimit {
    let quota = Quota::new(burst, Duration::from_secs(60), burst).unwrap();
    RateLimit {
        table: Arc::new(Table::new(64, [1; 16], start)),
        quota,
        words: String::new(),
        counts: CountedRequests::Every,
        fields: RateFields::new(&rule.id.name, burst, quota),
        rule,
    }
}

fn limits(rates: Vec<RateLimit>, in_flight: Vec<InFlight>) -> Limits {
    Limits {
        rates: rates.into_iter().map(Arc::new).collect(),
        in_flight: in_flight.into_iter().map(Arc::new).collect(),
    }
}

fn count(limits: &Limits, client: &str, late: bool, now: Instant) -> (Counted, Result<(), Reject>) {
    let headers = HeaderMap::new();
    let path = RequestPath::parse(&PathAndQuery::from_static("/")).unwrap();
    let sender = Sender {
        client: client.parse::<IpAddr>().ok(),
        headers: &headers,
        path: &path,
        permit: None,
    };
    let mut counted = Counted::default();
    let result = limits.count(&sender, late, now, &mut counted);
    (counted, result)
}

fn told(limits: &Limits, counted: &Counted) -> Vec<String> {
    let mut headers = HeaderMap::new();
    limits.tell(counted, &mut headers);
    let fields = headers.iter();
    fields
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect()
}

#[test]
fn the_first_limit_that_refuses_ends_it_and_later_ones_are_not_charged() {
    let start = Instant::now();
    let limits = limits(
        vec![
            rate(rule("address", vec![Source::Ip]), 2, start),
            rate(rule("all", vec![]), 100, start),
        ],
        vec![],
    );
    let (counted, result) = count(&limits, "10.0.0.1", false, start);
    assert_eq!(result, Ok(()));
    assert_eq!(
        told(&limits, &counted),
        [
            "ratelimit-policy: \"address\";q=2;w=60, \"all\";q=100;w=60",
            "ratelimit: \"address\";r=1;t=30, \"all\";r=99;t=1",
        ]
    );
    assert!(count(&limits, "10.0.0.1", false, start).1.is_ok());
    for _ in 0..5 {
        let (counted, result) = count(&limits, "10.0.0.1", false, start);
        let refused = Reject::RateLimited(Exceeded {
            limit: 0,
            retry: 30,
        });
        assert_eq!(result, Err(refused));
        assert_eq!(limits.name_of_over(&counted), Some("address"));
        assert_eq!(
            told(&limits, &counted),
            [
                "ratelimit-policy: \"address\";q=2;w=60",
                "ratelimit: \"address\";r=0;t=60",
            ]
        );
    }
    let (counted, _) = count(&limits, "10.0.0.2", false, start);
    assert!(told(&limits, &counted)[1].ends_with("\"all\";r=97;t=2"));
    assert!(
        count(&limits, "10.0.0.2", true, start)
            .0
            .standings
            .is_empty()
    );
}

#[test]
fn refused_requests_alone_are_counted_where_a_limit_says_so() {
    let start = Instant::now();
    let guessing = RateLimit {
        counts: CountedRequests::Refused,
        ..rate(rule("guessing", vec![Source::Ip]), 2, start)
    };
    let limits = limits(vec![guessing], vec![]);
    for _ in 0..10 {
        let (counted, result) = count(&limits, "10.0.0.1", false, start);
        assert_eq!(result, Ok(()));
        assert!(told(&limits, &counted).is_empty());
    }
    for _ in 0..2 {
        let (counted, _) = count(&limits, "10.0.0.1", false, start);
        limits.refused(&counted, Refusal::Other, start);
    }
    let (counted, result) = count(&limits, "10.0.0.1", false, start);
    assert!(matches!(result, Err(Reject::RateLimited(_))));
    assert_eq!(
        told(&limits, &counted)[1],
        "ratelimit: \"guessing\";r=0;t=60"
    );
    assert!(count(&limits, "10.0.0.2", false, start).1.is_ok());
}

#[test]
fn wrong_passwords_alone_are_counted_by_the_limit_for_those() {
    let start = Instant::now();
    let passwords = RateLimit {
        counts: CountedRequests::WrongPasswords,
        ..rate(rule("wrong passwords", vec![Source::Ip]), 2, start)
    };
    let limits = limits(vec![passwords], vec![]);
    let (counted, _) = count(&limits, "10.0.0.1", false, start);
    for _ in 0..9 {
        limits.refused(&counted, Refusal::Other, start);
        assert_eq!(count(&limits, "10.0.0.1", false, start).1, Ok(()));
    }
    for _ in 0..2 {
        limits.refused(&counted, Refusal::WrongPassword, start);
    }
    let (_, result) = count(&limits, "10.0.0.1", false, start);
    assert!(
        matches!(result, Err(Reject::Throttled { retry: 1.. })),
        "{result:?}"
    );
    assert_eq!(count(&limits, "10.0.0.2", false, start).1, Ok(()));
}

#[test]
fn what_is_only_reported_passes_and_who_is_excepted_does_not_count() {
    let start = Instant::now();
    let except = Networks {
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        unix: false,
    };
    let reporting = Rule {
        only_reports: true,
        except: Some(Addresses::new(&except, &Networks::default())),
        ..rule("shadow", vec![Source::Ip])
    };
    let limits = limits(vec![rate(reporting, 1, start)], vec![]);
    for over in [false, true, true] {
        let (counted, result) = count(&limits, "192.0.2.1", false, start);
        assert_eq!((result, counted.reported().is_some()), (Ok(()), over));
        let name = over.then_some("shadow");
        assert_eq!(limits.name_of_over(&counted), name);
        let (counted, result) = count(&limits, "10.0.0.1", false, start);
        assert_eq!((result, counted.reported()), (Ok(()), None));
    }
    assert_eq!(limits.rates[0].rule.over.load(Ordering::Relaxed), 2);
}

#[test]
fn a_place_in_flight_is_given_back_and_a_request_without_one_costs_no_rate() {
    let start = Instant::now();
    let in_flight = InFlight {
        rule: rule("flight", vec![Source::Ip]),
        counts: Arc::new(Counts::new(64, [2; 16])),
        max: 1,
    };
    let limits = limits(
        vec![rate(rule("rate", vec![Source::Ip]), 100, start)],
        vec![in_flight],
    );
    let (first, result) = count(&limits, "10.0.0.1", false, start);
    assert_eq!(result, Ok(()));
    let (second, result) = count(&limits, "10.0.0.1", false, start);
    assert_eq!(result, Err(Reject::TooManyInFlight { limit: 0 }));
    assert_eq!(limits.name_of_over(&second), Some("flight"));
    limits.leave(&second);
    assert!(count(&limits, "10.0.0.1", false, start).1.is_err());
    limits.leave(&first);
    let (third, result) = count(&limits, "10.0.0.1", false, start);
    assert_eq!(result, Ok(()));
    assert!(told(&limits, &third)[1].contains("r=98"));
}
