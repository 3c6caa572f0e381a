//! What is dealt, against a dealer that knows no better than to look at everybody for each turn.

use proptest::prelude::*;

use super::*;

fn deal(weights: &[u32]) -> Deal {
    Deal::new(weights.iter().copied().enumerate(), (0, 1))
}

/// So many picks in turn, with these requests in flight.
fn picks(deal: &mut Deal, balance: Balance, loads: &[usize], count: usize) -> Vec<usize> {
    let mut dice = Dice::new(7);
    (0..count)
        .map(|_| {
            let load = |index: usize| loads[index];
            deal.pick(balance, &mut dice, load, |_| true).unwrap()
        })
        .collect()
}

/// Who is due next: the one whose next turn comes first, looked up anew each time.
fn naive(weights: &[u32], count: usize) -> Vec<usize> {
    let mut dealt = vec![0_u64; weights.len()];
    let mut order = Vec::new();
    for _ in 0..count {
        let mut best: Option<usize> = None;
        for at in 0..weights.len() {
            let due = |at: usize| (2 * dealt[at] + 1, u64::from(weights[at]));
            let is_earlier = |best: usize| {
                let ((mine, of_mine), (theirs, of_theirs)) = (due(at), due(best));
                mine * of_theirs < theirs * of_mine
            };
            if weights[at] > 0 && best.is_none_or(is_earlier) {
                best = Some(at);
            }
        }
        let best = best.unwrap();
        dealt[best] += 1;
        order.push(best);
    }
    order
}

#[test]
fn weights_are_interleaved() {
    let loads = [0; 3];
    let order = |weights: &[u32]| picks(&mut deal(weights), Balance::RoundRobin, &loads, 7);
    assert_eq!(order(&[2, 1, 1]), [0, 1, 2, 0, 0, 1, 2]);
    assert_eq!(order(&[4, 2, 2]), order(&[2, 1, 1]));
    assert_eq!(order(&[1, 1, 1]), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(order(&[0, 3, 0]), [1; 7]);
    assert_eq!(order(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
}

#[test]
fn workers_begin_at_different_servers() {
    let begin = |worker| {
        let mut deal = Deal::new((0..4).map(|at| (at, 1)), (worker, 4));
        picks(&mut deal, Balance::RoundRobin, &[0; 4], 1)[0]
    };
    assert_eq!([begin(0), begin(1), begin(2), begin(3)], [0, 1, 2, 3]);
}

#[test]
fn nobody_is_chosen_from_nobody() {
    let mut dice = Dice::new(1);
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequests,
        Balance::RandomTwo,
    ] {
        let pick =
            |deal: &mut Deal, dice: &mut Dice, may: bool| deal.pick(balance, dice, |_| 0, |_| may);
        assert_eq!(pick(&mut deal(&[]), &mut dice, true), None);
        assert_eq!(pick(&mut deal(&[0, 0]), &mut dice, true), None);
        assert_eq!(pick(&mut deal(&[1, 1]), &mut dice, false), None);
    }
}

#[test]
fn the_fewest_requests_for_the_weight_decide_and_equals_take_turns() {
    let least = |weights: &[u32], loads: &[usize], count| {
        picks(&mut deal(weights), Balance::LeastRequests, loads, count)
    };
    assert_eq!(least(&[1, 1, 1], &[3, 1, 2], 2), [1, 1]);
    assert_eq!(least(&[4, 1], &[3, 1], 1), [0], "3/4 is less than 1");
    assert_eq!(least(&[1, 1, 1], &[5, 5, 5], 4), [0, 1, 2, 0]);
}

#[test]
fn of_many_servers_a_few_are_looked_at() {
    let count = 1_000;
    let mut deal = deal(&vec![1; count]);
    let mut loads = vec![0; count];
    let mut dice = Dice::new(3);
    for _ in 0..20 * count {
        let pick = deal.pick(Balance::LeastRequests, &mut dice, |at| loads[at], |_| true);
        loads[pick.unwrap()] += 1;
    }
    let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    assert!(most - least <= 4, "from {least} to {most}");
}

#[test]
fn the_less_busy_of_two_spreads_requests_by_weight() {
    let weights = [4, 1, 1, 2];
    let mut deal = deal(&weights);
    let mut loads = [0_usize; 4];
    let mut dice = Dice::new(11);
    for _ in 0..8_000 {
        let pick = deal.pick(Balance::RandomTwo, &mut dice, |at| loads[at], |_| true);
        loads[pick.unwrap()] += 1;
    }
    for (load, weight) in loads.iter().zip(weights) {
        let fair = 1_000 * usize::try_from(weight).unwrap();
        assert!(load.abs_diff(fair) < fair / 10, "{loads:?}");
    }
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(
        prop_oneof![Just(0), 1_u32..8, Just(256), 1_u32..=256],
        1..12,
    )
    .prop_filter("somebody", |weights| weights.iter().any(|it| *it > 0))
}

proptest! {
    #[test]
    fn turns_come_as_the_naive_dealer_deals_them(weights in weights()) {
        let by = weights.iter().copied().fold(0, greatest_common_divisor);
        let period: u32 = weights.iter().map(|weight| weight / by).sum();
        let count = usize::try_from(period).unwrap();
        let dealt = picks(&mut deal(&weights), Balance::RoundRobin, &vec![0; weights.len()], 2 * count);
        let naive = naive(&weights, count);
        prop_assert_eq!(&dealt[..count], &naive[..]);
        prop_assert_eq!(&dealt[count..], &naive[..], "each round is the same");
        for (at, weight) in weights.iter().enumerate() {
            let turns = naive.iter().filter(|turn| **turn == at).count();
            prop_assert_eq!(turns, usize::try_from(weight / by).unwrap());
        }
    }

    #[test]
    fn the_chosen_one_has_nobody_less_busy_beside_it(
        servers in proptest::collection::vec((1_u32..=256, 0_usize..50, any::<bool>()), 1..=ALL),
        before in 0_usize..100,
    ) {
        let weights: Vec<u32> = servers.iter().map(|(weight, ..)| *weight).collect();
        let mut deal = deal(&weights);
        let mut dice = Dice::new(1);
        for _ in 0..before {
            deal.pick(Balance::RoundRobin, &mut dice, |_| 0, |_| true);
        }
        let pick = deal.pick(Balance::LeastRequests, &mut dice, |at| servers[at].1, |at| servers[at].2);
        let busy = |(weight, load, _): (u32, usize, bool)| load as f64 / f64::from(weight);
        match pick {
            None => prop_assert!(servers.iter().all(|(.., may)| !may)),
            Some(pick) => {
                prop_assert!(servers[pick].2);
                let usable = servers.iter().filter(|(.., may)| *may);
                prop_assert!(usable.copied().all(|other| busy(servers[pick]) <= busy(other) + 1e-9));
            }
        }
    }

    #[test]
    fn nobody_is_chosen_who_may_not(weights in weights(), allowed in any::<u16>(), seed in any::<u64>()) {
        let mut deal = deal(&weights);
        let mut dice = Dice::new(seed);
        let may = |at: usize| allowed >> at & 1 == 1;
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::RandomTwo] {
            for _ in 0..20 {
                let pick = deal.pick(balance, &mut dice, |_| 0, may);
                let somebody = (0..weights.len()).any(|at| weights[at] > 0 && may(at));
                prop_assert_eq!(pick.is_some(), somebody);
                prop_assert!(pick.is_none_or(|at| weights[at] > 0 && may(at)));
            }
        }
    }

    #[test]
    fn dice_stay_below(seed in any::<u64>(), count in 0_usize..1_000_000) {
        let thrown = Dice::new(seed).below(count);
        prop_assert!(thrown < count.max(1));
    }
}

/// The server of a key as the words of the contract have it: everybody draws as often as the weight says, and the highest
/// draw wins, whoever stands where.
fn naive_owner(key: u64, servers: &[(&str, u32)]) -> Option<String> {
    let mut best: Option<(u64, &str)> = None;
    for (name, weight) in servers {
        for nth in 0..u64::from(*weight) {
            let drawn = draw(key, hash(name.as_bytes()), nth);
            if best.is_none_or(|(highest, _)| drawn > highest) {
                best = Some((drawn, name));
            }
        }
    }
    best.map(|(_, name)| name.to_owned())
}

fn owner(key: u64, servers: &[(&str, u32)], may: impl Fn(usize) -> bool) -> Option<String> {
    let names: Vec<u64> = servers
        .iter()
        .map(|(name, _)| hash(name.as_bytes()))
        .collect();
    let deal = deal(
        &servers
            .iter()
            .map(|(_, weight)| *weight)
            .collect::<Vec<_>>(),
    );
    let at = deal.belongs(key, &names, may)?;
    Some(servers[at].0.to_owned())
}

const NAMES: [&str; 6] = [
    "http://a:1",
    "http://b:1",
    "http://c:1",
    "unix:/d",
    "http://e:1",
    "http://f:1",
];

proptest! {
    #[test]
    fn a_key_belongs_to_whom_the_oracle_says(
        key: u64,
        weights in proptest::collection::vec(0_u32..=9, 1..6),
        turned in 0_usize..6,
    ) {
        let mut servers: Vec<(&str, u32)> = NAMES.into_iter().zip(weights).collect();
        let expected = naive_owner(key, &servers);
        prop_assert_eq!(&owner(key, &servers, |_| true), &expected);
        // Their order is nothing.
        let turned = turned % servers.len();
        servers.rotate_left(turned);
        prop_assert_eq!(&owner(key, &servers, |_| true), &expected);
        // Who leaves takes nobody else's keys along, whether it is gone or only not usable.
        for out in 0..servers.len() {
            let left: Vec<_> = servers.iter().enumerate().filter(|(at, _)| *at != out).map(|(_, it)| *it).collect();
            let now = owner(key, &left, |_| true);
            prop_assert_eq!(&owner(key, &servers, |at| at != out), &now);
            if expected.as_deref() != Some(servers[out].0) {
                prop_assert_eq!(&now, &expected);
            }
        }
        // Who gets a greater weight takes keys, and gives none.
        for at in 0..servers.len() {
            let mut more = servers.clone();
            more[at].1 += 3;
            let now = owner(key, &more, |_| true);
            prop_assert!(now == expected || now.as_deref() == Some(servers[at].0));
        }
    }
}

#[test]
fn keys_are_shared_by_weight() {
    let servers: Vec<(&str, u32)> = NAMES.into_iter().zip([1, 2, 3, 4]).collect();
    let mut counts = [0_u32; 4];
    for key in 0..40_000_u64 {
        let owner = owner(hash(&key.to_le_bytes()), &servers, |_| true).unwrap();
        counts[NAMES.iter().position(|name| *name == owner).unwrap()] += 1;
    }
    for (count, share) in counts.into_iter().zip([4_000, 8_000, 12_000, 16_000]) {
        assert!(count.abs_diff(share) < share / 15, "{counts:?}");
    }
}

/// What this version says, every other version and every gateway beside it must say, too.
#[test]
fn the_hash_is_fixed() {
    assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash(b"http://a:1"), hash(b"http://a:1"));
    let servers: Vec<(&str, u32)> = NAMES.into_iter().zip([1, 1, 2, 1, 1, 3]).collect();
    let owners: Vec<String> = ["ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal"]
        .into_iter()
        .map(|user| owner(hash(user.as_bytes()), &servers, |_| true).unwrap())
        .collect();
    assert_eq!(owners, FIXED);
}

/// As Python's xxhash has it.
const FIXED: [&str; 8] = [
    "http://e:1",
    "http://e:1",
    "http://e:1",
    "http://c:1",
    "http://b:1",
    "http://f:1",
    "unix:/d",
    "http://c:1",
];

#[test]
fn a_share_rises_in_steps() {
    let long = Duration::from_secs(30);
    let at = |seconds: u64| step(Duration::from_secs(seconds), long);
    let next = |seconds: u64| Some(Duration::from_secs(seconds));
    assert_eq!(at(0), (1, next(3)));
    assert_eq!(at(2), (1, next(1)));
    assert_eq!(at(3), (2, next(3)));
    assert_eq!(at(28), (10, next(2)));
    assert_eq!(at(30), (10, None));
    assert_eq!(step(Duration::ZERO, Duration::ZERO), (10, None));
    // A tenth of the share of another one.
    let mut deal = Deal::new([(0, 10), (1, 1)], (0, 1));
    let all = picks(&mut deal, Balance::RoundRobin, &[0; 2], 110);
    assert_eq!(all.iter().filter(|at| **at == 1).count(), 10);
}
