//! Who is taken out, for how long, and that some always stay.

use proptest::prelude::*;

use super::*;

fn settings() -> EjectSettings {
    EjectSettings {
        consecutive_failures: 3,
        time: Duration::from_secs(10),
        longest: Duration::from_secs(60),
        most: 50,
        on: [Condition::ConnectFailure, Condition::Broken]
            .into_iter()
            .collect(),
    }
}

fn chosen(tried: bool) -> Chosen {
    if tried { Chosen::Due } else { Chosen::In }
}

/// Servers, and what they have in common.
struct Servers(Vec<Standing>, Standings);

impl Servers {
    fn new(count: usize) -> Self {
        let servers = (0..count).map(|_| Standing::default()).collect();
        Self(servers, Standings::default())
    }

    fn fails(&self, at: usize, tried: bool) -> Change {
        let failure = Condition::Broken;
        let tried = chosen(tried);
        self.1
            .fails(&settings(), failure, (&self.0[at], tried), self.0.iter())
    }

    fn succeeds(&self, at: usize, tried: bool) -> Change {
        let tried = chosen(tried);
        self.1.succeeds((&self.0[at], tried), self.0.iter())
    }

    /// Whether a request tries this server so many seconds from the beginning.
    fn tries(&self, at: usize, seconds: u64, repeatable: bool) -> bool {
        self.0[at].tries(seconds * 1_000, repeatable, Duration::from_secs(10))
    }
}

const TEN: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_server_is_taken_out_after_failures_in_a_row_and_comes_back_with_the_first_success() {
    let servers = Servers::new(2);
    assert_eq!(servers.fails(0, false), Change::None);
    assert_eq!(servers.fails(0, false), Change::None);
    assert_eq!(
        servers.succeeds(0, false),
        Change::None,
        "a success begins anew"
    );
    assert_eq!(servers.fails(0, false), Change::None);
    assert_eq!(servers.fails(0, false), Change::None);
    assert_eq!(servers.1.changes(), 0);
    assert_eq!(servers.fails(0, false), Change::Out(TEN, 1, 2));
    assert_eq!(servers.1.changes(), 1);
    // What was under way changes nothing.
    assert_eq!(servers.fails(0, false), Change::None);
    assert_eq!(servers.succeeds(0, false), Change::None);
    assert!(servers.0[0].is_out() && !servers.0[1].is_out());

    assert!(!servers.tries(0, 9, true));
    assert!(servers.tries(0, 11, true) && servers.0[0].is_out());
    assert_eq!(servers.succeeds(0, true), Change::Back(2, 2));
    assert!(!servers.0[0].is_out());
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_and_if_it_says_nothing_another_one_later() {
    let servers = Servers::new(2);
    for _ in 0..3 {
        servers.fails(0, false);
    }
    assert!(!servers.tries(0, 9, true), "too early");
    assert!(
        !servers.tries(0, 11, false),
        "one that does no harm may still come"
    );
    assert!(servers.tries(0, 11, true));
    assert!(!servers.tries(0, 12, true), "one is enough");
    assert!(servers.tries(0, 23, false), "nothing was heard of it");
}

#[tokio::test(start_paused = true)]
async fn each_time_is_twice_the_one_before_until_it_is_forgotten() {
    let servers = Servers::new(2);
    let out = |change| match change {
        Change::Out(time, ..) => time.as_secs(),
        Change::None | Change::Kept | Change::Back(..) => panic!("{change:?}"),
    };
    servers.fails(0, false);
    servers.fails(0, false);
    assert_eq!(out(servers.fails(0, false)), 10);
    for expected in [20, 40, 60, 60] {
        assert_eq!(out(servers.fails(0, true)), expected, "a try fails");
    }
    servers.succeeds(0, true);
    tokio::time::advance(Duration::from_secs(59)).await;
    servers.fails(0, false);
    servers.fails(0, false);
    assert_eq!(out(servers.fails(0, false)), 60, "not forgotten yet");
    servers.succeeds(0, true);
    tokio::time::advance(Duration::from_secs(61)).await;
    servers.fails(0, false);
    servers.fails(0, false);
    assert_eq!(out(servers.fails(0, false)), 10);
}

#[tokio::test(start_paused = true)]
async fn too_many_stay_in_and_that_is_said_once() {
    let servers = Servers::new(3);
    let mut changes = Vec::new();
    for at in [0, 1, 2, 1] {
        for _ in 0..3 {
            changes.push(servers.fails(at, false));
        }
    }
    changes.retain(|change| *change != Change::None);
    assert_eq!(changes, [Change::Out(TEN, 2, 3), Change::Kept]);
    servers.succeeds(0, true);
    assert_eq!(
        servers.fails(1, false),
        Change::Out(TEN, 2, 3),
        "now there is room"
    );
}

#[test]
fn who_is_tried_last_is_not_out_for_longer_and_may_come_back() {
    let servers = Servers::new(2);
    for _ in 0..3 {
        servers.fails(0, false);
    }
    let due = servers.0[0].due();
    let last = (&servers.0[0], Chosen::Last);
    for _ in 0..9 {
        let all = servers.0.iter();
        let change = servers.1.fails(&settings(), Condition::Broken, last, all);
        assert_eq!(change, Change::None);
    }
    assert_eq!(servers.0[0].due(), due);
    assert_eq!(
        servers.1.succeeds(last, servers.0.iter()),
        Change::Back(2, 2)
    );
}

#[test]
fn other_failures_do_not_count() {
    let servers = Servers::new(2);
    for _ in 0..10 {
        let change = servers.1.fails(
            &settings(),
            Condition::Timeout,
            (&servers.0[0], Chosen::In),
            servers.0.iter(),
        );
        assert_eq!(change, Change::None);
    }
    assert_eq!(servers.fails(0, false), Change::None, "none was counted");
}

proptest! {
    #[test]
    fn the_share_is_never_exceeded_and_somebody_stays(
        count in 1_usize..8, most in 0_u32..=100, events in proptest::collection::vec((0_usize..8, any::<bool>(), any::<bool>()), 0..200),
    ) {
        let eject = EjectSettings { most, ..settings() };
        let servers = Servers::new(count);
        for (at, fails, tried) in events {
            let server = &servers.0[at % count];
            let tried = chosen(tried && server.is_out());
            if fails {
                servers.1.fails(&eject, Condition::Broken, (server, tried), servers.0.iter());
            } else {
                servers.1.succeeds((server, tried), servers.0.iter());
            }
            let out = servers.0.iter().filter(|it| it.is_out()).count();
            prop_assert!(out < count && out * 100 <= count * most as usize);
        }
    }

    #[test]
    fn times_grow_to_the_longest(time in 1_u64..1_000, longest in 1_u64..1_000, last in 1_u64..1_000, since in 0_u64..2_000) {
        let seconds = Duration::from_secs;
        let longest = longest.max(time);
        let eject = EjectSettings { time: seconds(time), longest: seconds(longest), ..settings() };
        let long = eject.how_long(Some((seconds(last), seconds(since))));
        prop_assert!(long >= seconds(time) && long <= seconds(longest));
        if since >= last {
            prop_assert_eq!(long, seconds(time));
        } else if 2 * last <= longest && 2 * last >= time {
            prop_assert_eq!(long, seconds(2 * last));
        }
    }
}
