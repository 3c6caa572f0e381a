//! The rules, row by row and against what they promise over any sequence of requests.

use proptest::prelude::*;

use super::*;

fn settings(on: &[Condition]) -> RetrySettings {
    RetrySettings {
        on: on.iter().copied().collect(),
        ..RetrySettings::DEFAULT
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_default_is_a_connection_elsewhere() {
    let default = RetrySettings::DEFAULT;
    assert_eq!(default, settings(&[Condition::ConnectFailure]));
    assert!(!default.on.sends_again() && !default.on.has_statuses());
    for (_, condition) in &Condition::WORDS[1..] {
        assert!(!default.may_send_again(*condition, 1, true));
    }
}

#[test]
fn ten_servers_that_refuse_are_all_tried_and_of_ten_that_are_silent_three() {
    let default = RetrySettings::DEFAULT;
    let connect = 2 * SECOND;
    let dials = |each: Duration| {
        let mut made = 1;
        while default.may_connect_again(made, made < 10, each * made, connect) {
            made += 1;
        }
        made
    };
    assert_eq!(dials(Duration::from_micros(100)), 10);
    assert_eq!(dials(connect), 3);
}

#[test]
fn one_server_is_tried_three_times_and_off_is_once() {
    let connects = |settings: RetrySettings| {
        let may = |made: &u32| settings.may_connect_again(*made, false, Duration::ZERO, SECOND);
        (1..20).find(|made| !may(made)).unwrap()
    };
    assert_eq!(connects(RetrySettings::DEFAULT), 3);
    assert_eq!(
        connects(RetrySettings {
            attempts: 0,
            ..RetrySettings::DEFAULT
        }),
        1
    );
    assert_eq!(connects(RetrySettings::OFF), 1);
    assert_eq!(connects(settings(&[Condition::Broken])), 1);
    assert!(!RetrySettings::OFF.may_connect_again(1, true, Duration::ZERO, SECOND));
}

#[test]
fn what_may_have_been_processed_is_sent_again_only_where_that_does_no_harm() {
    for (word, condition) in Condition::WORDS {
        let named = settings(&[condition]);
        assert!(named.may_send_again(condition, 1, true), "{word}");
        assert!(named.may_send_again(condition, 2, true), "{word}");
        assert!(
            !named.may_send_again(condition, 3, true),
            "{word}: two more, then no more"
        );
        assert!(!named.may_send_again(condition, 1, false), "{word}: a POST");
        let daring = RetrySettings {
            non_idempotent: true,
            ..named
        };
        assert!(daring.may_send_again(condition, 1, false), "{word}");
        for (_, other) in Condition::WORDS {
            assert_eq!(
                named.may_send_again(other, 1, true),
                other == condition,
                "{word}"
            );
        }
    }
}

#[test]
fn statuses_are_conditions_and_others_are_none() {
    let of = |status: u16| Condition::of(StatusCode::from_u16(status).unwrap());
    for status in 100..1000 {
        let word = status.to_string();
        let known = Condition::WORDS.iter().find(|(known, _)| *known == word);
        assert_eq!(of(status), known.map(|(_, condition)| *condition));
    }
}

#[test]
fn a_pause_is_doubled() {
    assert_eq!(pause(0, 50), Duration::from_millis(25));
    assert_eq!(pause(1, 50), Duration::from_millis(50));
    assert_eq!(pause(2, 50), Duration::from_millis(100));
    assert_eq!(pause(0, 0), Duration::from_micros(12_500));
    assert!(pause(0, 99) < Duration::from_millis(38));
    assert!(pause(u32::MAX, u32::MAX) < Duration::from_secs(60));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Request,
    Failure,
    Millis(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Request),
        3 => Just(Event::Failure),
        1 => (0_u64..3_000).prop_map(Event::Millis),
    ];
    proptest::collection::vec(event, 0..600)
}

proptest! {
    /// The oracle keeps every date and adds everything up anew.
    #[test]
    fn no_more_is_sent_again_than_the_share_and_one_a_second(events in events(), percent in 0_u32..=100) {
        let start = Instant::now();
        let mut now = start;
        let mut budget = Budget::default();
        let (mut requests, mut taken, mut free) = (0_u64, 0_u64, Vec::<Instant>::new());
        let mut saved = 0_f64;
        for event in events {
            match event {
                Event::Request => {
                    budget.comes(percent);
                    requests += 1;
                    saved = (saved + f64::from(percent) / 100.0).min(100.0);
                }
                Event::Millis(millis) => now += Duration::from_millis(millis),
                Event::Failure => {
                    let has_one = saved > 1.0 - 1e-6;
                    let is_free = free.last().is_none_or(|last| now - *last >= SECOND);
                    prop_assert_eq!(budget.take(now), has_one || is_free);
                    if has_one {
                        saved -= 1.0;
                        taken += 1;
                    } else if is_free {
                        free.push(now);
                    }
                }
            }
        }
        prop_assert!(taken * 100 <= requests * u64::from(percent));
        prop_assert!(free.len() as u64 <= (now - start).as_secs() + 1);
    }
}
