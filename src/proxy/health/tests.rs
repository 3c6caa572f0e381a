use super::*;

fn settings(unhealthy_after: u32, healthy_after: u32) -> HealthSettings {
    HealthSettings {
        request: None,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        unhealthy_after,
        healthy_after,
        tries_all: false,
    }
}

/// What changes with each of these checks: `+` passes, `-` fails; in the result `u` is up, `d` is down.
#[track_caller]
fn check(known: Option<bool>, checks: &str, expected: &str) {
    let settings = settings(3, 2);
    let mut tally = Tally::new(known);
    let said: String = checks
        .chars()
        .map(|check| match tally.hears(check == '+', &settings) {
            Some(_) if check == '+' => 'u',
            Some(_) => 'd',
            None => '.',
        })
        .collect();
    assert_eq!(said, expected, "{known:?} {checks}");
}

#[test]
fn the_first_check_decides_alone_and_then_so_many_in_a_row() {
    check(None, "+", "u");
    check(None, "-", "d");
    check(None, "---++---", "d...u..d");
    check(None, "+--+--+---", "u........d");
    check(None, "-+-+-++", "d.....u");
    // After a reload that changes the checks, what is known stays until so many say otherwise.
    check(Some(true), "-+---", "....d");
    check(Some(false), "+-++", "...u");
    check(Some(true), "+", ".");
}

#[test]
fn it_is_said_how_many() {
    let mut tally = Tally::new(None);
    assert_eq!(tally.hears(false, &settings(3, 2)), Some(1));
    assert_eq!(tally.hears(true, &settings(3, 1)), Some(1));
    assert_eq!(tally.hears(false, &settings(2, 1)), None);
    assert_eq!(tally.hears(false, &settings(2, 1)), Some(2));
}
