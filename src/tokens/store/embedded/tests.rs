//! The store on disk: sessions, rotations, and what is there after a crash.

use std::pin::pin;
use std::task::{Context, Waker};

use serde_json::Map;

use super::*;
use crate::tokens::spender::Spender;

const LIVES: Lives = Lives {
    access: 300,
    refresh: 86_400,
};

fn open(directory: &Path) -> Result<Arc<dyn Store>, String> {
    let store = Embedded::open(directory, LIVES, 0, Arc::default())?;
    Ok(Arc::new(store))
}

#[tokio::test]
async fn a_store_whose_maker_was_killed_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".tokens.redb-killed"), [0; 4096]).unwrap();
    let store = open(directory.path()).unwrap();
    store.begin("f".to_owned(), family(1)).await.unwrap();
    let names = || {
        let all = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), [".tokens.redb-killed", "tokens.redb"]);
    let path = directory.path().join("tokens.redb");
    make(&path).unwrap();
    assert_eq!(names().len(), 2, "whoever is second leaves nothing");
    assert!(store.look(named("f")).await.unwrap().is_some());
}

fn named(id: &str) -> FamilyName {
    FamilyName {
        id: id.to_owned(),
        sub: "alice".to_owned(),
    }
}

fn family(created: u64) -> Family {
    Family {
        sub: "alice".to_owned(),
        created,
        generation: 0,
        rotated: created,
        expires: 1_000_000,
        spender: Spender::default(),
        repeated: false,
        ended: None,
        claims: Map::new(),
    }
}

fn spender(last: u8) -> Spender {
    Spender::of("f", Some([10, 0, 0, last].into()), None)
}

fn refresh(id: &str, generation: u64, now: u64) -> Refresh {
    Refresh {
        family: named(id),
        generation,
        now,
        rotate_until: Some(2_000_000),
        grace: 10_000,
        spender: spender(1),
    }
}

fn generation(refreshed: &Refreshed) -> Option<u64> {
    match refreshed {
        Refreshed::Family(family) => Some(family.generation),
        Refreshed::Reused | Refreshed::Ended => None,
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_late_repeat_ends_its_family() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.begin("f".to_owned(), family(1)).await.unwrap();
    let refreshed = store.refresh(refresh("f", 0, 1000)).await.unwrap();
    assert_eq!(generation(&refreshed), Some(1));
    // Within the grace period the same replacement, and no further one.
    let again = store.refresh(refresh("f", 0, 11_000)).await.unwrap();
    assert_eq!(generation(&again), Some(1));
    let next = store.refresh(refresh("f", 1, 11_000)).await.unwrap();
    assert_eq!(generation(&next), Some(2));
    let reused = store.refresh(refresh("f", 0, 11_001)).await.unwrap();
    assert_eq!(reused, Refreshed::Reused);
    for spent in 0..4 {
        let ended = store.refresh(refresh("f", spent, 11_002)).await.unwrap();
        assert_eq!(ended, Refreshed::Ended);
    }
    assert_eq!(store.look(named("f")).await, Ok(None));
    assert_eq!(
        store.refresh(refresh("g", 0, 1)).await,
        Ok(Refreshed::Ended)
    );

    store.begin("late".to_owned(), family(1)).await.unwrap();
    let first = store.refresh(refresh("late", 0, 1000)).await.unwrap();
    assert_eq!(generation(&first), Some(1));
    let late = store.refresh(refresh("late", 0, 11_001)).await.unwrap();
    assert_eq!(late, Refreshed::Reused);
    // A generation from the future is as invalid as an older one.
    store.begin("odd".to_owned(), family(1)).await.unwrap();
    assert_eq!(
        store.refresh(refresh("odd", 5, 2)).await,
        Ok(Refreshed::Reused)
    );
}

#[tokio::test]
async fn the_grace_is_for_who_spent_the_token_and_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let by = |id: &str, last, now| Refresh {
        spender: spender(last),
        ..refresh(id, 0, now)
    };
    for id in ["other", "twice"] {
        store.begin(id.to_owned(), family(1)).await.unwrap();
        let spent = store.refresh(by(id, 1, 1000)).await.unwrap();
        assert_eq!(generation(&spent), Some(1));
    }
    let other = store.refresh(by("other", 2, 1001)).await;
    assert_eq!(other, Ok(Refreshed::Reused));
    let once = store.refresh(by("twice", 1, 1001)).await.unwrap();
    assert_eq!(generation(&once), Some(1));
    let twice = store.refresh(by("twice", 1, 1002)).await;
    assert_eq!(twice, Ok(Refreshed::Reused));
}

#[tokio::test]
async fn a_successor_that_was_given_to_nobody_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.redb");
    let longest = Arc::new(Longest::default());
    let mut keeper = Keeper {
        database: Some(database(&path).unwrap()),
        path,
        known: Lives::default(),
        longest,
        revoked: Arc::default(),
        swept: String::new(),
    };
    prepare(keeper.database.as_ref().unwrap(), &keeper.longest, 0).unwrap();
    let (told, _begun) = oneshot::channel();
    keeper.obey(&mut vec![Order::Begin("f".to_owned(), family(1), told)]);
    // The caller goes away during the wait for the disk.
    let (told, gone) = oneshot::channel();
    drop(gone);
    assert!(keeper.obey(&mut vec![Order::Refresh(refresh("f", 0, 1000), told)]));
    let (told, mut refreshed) = oneshot::channel();
    keeper.obey(&mut vec![Order::Refresh(refresh("f", 0, 900_000), told)]);
    let refreshed = refreshed.try_recv().unwrap().unwrap();
    assert_eq!(generation(&refreshed), Some(1));
}

#[tokio::test]
async fn without_rotation_and_without_grace() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.begin("f".to_owned(), family(1)).await.unwrap();
    let same = Refresh {
        rotate_until: None,
        ..refresh("f", 0, 5)
    };
    for _ in 0..3 {
        let refreshed = store.refresh(same.clone()).await.unwrap();
        assert_eq!(refreshed, Refreshed::Family(family(1)));
    }
    let strict = |generation| Refresh {
        grace: 0,
        ..refresh("f", generation, 5)
    };
    assert_eq!(
        generation(&store.refresh(strict(0)).await.unwrap()),
        Some(1)
    );
    assert_eq!(store.refresh(strict(0)).await, Ok(Refreshed::Reused));
}

#[tokio::test]
async fn what_was_answered_is_there_when_the_store_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = open(directory.path()).unwrap();
        for id in ["a", "b", "c"] {
            store.begin(id.to_owned(), family(1)).await.unwrap();
        }
        store.end(named("a"), 7, Everywhere::No).await.unwrap();
        let mut bob = family(5);
        bob.sub = "bob".to_owned();
        store.begin("d".to_owned(), bob).await.unwrap();
        store
            .end_all(vec![("bob".to_owned(), 9), ("bob".to_owned(), 8)])
            .await
            .unwrap();
        assert!(open(directory.path()).is_err(), "two have the store");
    }
    let store = reopened(directory.path(), LIVES, 0, &Arc::default()).await;
    let store: Arc<dyn Store> = Arc::new(store);
    assert_eq!(store.look(named("a")).await, Ok(None));
    assert_eq!(store.look(named("b")).await, Ok(Some(family(1))));
    let of_bob = |id: &str| FamilyName {
        sub: "bob".to_owned(),
        ..named(id)
    };
    assert_eq!(store.look(of_bob("d")).await, Ok(None));
    // A login after that is accepted.
    let mut later = family(10);
    later.sub = "bob".to_owned();
    store.begin("e".to_owned(), later.clone()).await.unwrap();
    assert_eq!(store.look(of_bob("e")).await, Ok(Some(later)));
    assert_eq!(store.look(named("e")).await, Ok(None), "it is not alice's");
    assert_eq!(store.purge(172_800_000).await, Ok(0));
    assert_eq!(store.purge((1_000_000 + 86_400 + 301) * 1000).await, Ok(6));
    assert_eq!(store.look(named("b")).await, Ok(None));
}

/// The store in this directory, once the previous handle has released it.
async fn reopened(
    directory: &Path,
    lives: Lives,
    now: u64,
    revoked: &Arc<LiveRevoked>,
) -> Embedded {
    loop {
        match Embedded::open(directory, lives, now, Arc::clone(revoked)) {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn claims_of(session: Option<&str>) -> crate::auth::Claims {
    let claims = serde_json::json!({"sid": session, "sub": "alice", "auth_time": 1.0});
    crate::auth::Claims::new(claims.as_object().unwrap().clone())
}

#[tokio::test]
async fn longer_lives_of_a_reload_are_written_down_before_a_token_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = Arc::default();
    let store: Arc<dyn Store> =
        Arc::new(Embedded::open(directory.path(), LIVES, 0, Arc::clone(&nobody)).unwrap());
    let longer = Lives {
        access: 3600,
        refresh: 100_000,
    };
    store.longest().at_least(longer);
    store.begin("f".to_owned(), family(1000)).await.unwrap();
    store.end(named("f"), 2000, Everywhere::Yes).await.unwrap();
    drop(store);
    // The end of a session with tokens of one hour is remembered for that hour, and of a token without a session
    // for a day.
    for (now, session, lone) in [
        (3_660_000, true, true),
        (3_663_000, false, true),
        (100_061_000, false, true),
        (100_063_000, false, false),
    ] {
        let revoked = Arc::default();
        let store = reopened(directory.path(), LIVES, now, &revoked).await;
        assert_eq!(store.longest().lives(), longer);
        assert_eq!(revoked.has_family("f"), session, "{now}");
        assert_eq!(revoked.has(&claims_of(None)), lone, "{now}");
        drop(store);
    }
}

#[tokio::test]
async fn a_token_is_not_spent_for_somebody_who_left() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.begin("f".to_owned(), family(1)).await.unwrap();
    let (told, gone) = oneshot::channel();
    drop(gone);
    store.take(Order::Refresh(refresh("f", 0, 1), told));
    let refreshed = store.refresh(refresh("f", 0, 90_000)).await.unwrap();
    assert_eq!(generation(&refreshed), Some(1));
}

#[tokio::test]
async fn what_has_expired_goes_a_part_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let many = SWEPT * 5 / 2;
    for first in (0..many).step_by(ORDERS / 2) {
        let some = first..many.min(first + ORDERS / 2);
        let told = some.map(|at| {
            let (told, begun) = oneshot::channel();
            store.take(Order::Begin(at.to_string(), family(1), told));
            begun
        });
        for begun in told.collect::<Vec<_>>() {
            begun.await.unwrap().unwrap();
        }
    }
    let over = (1_000_000 + 86_400 + 301) * 1000;
    for gone in [SWEPT, SWEPT, SWEPT / 2, 0] {
        assert_eq!(store.purge(over).await, Ok(gone));
    }
}

#[tokio::test]
async fn what_ends_is_told_to_the_workers_whether_or_not_anybody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let revoked = Arc::new(LiveRevoked::default());
    let lives = Lives {
        access: 300,
        refresh: 600,
    };
    let store = Embedded::open(directory.path(), lives, 0, Arc::clone(&revoked)).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.begin("f".to_owned(), family(1000)).await.unwrap();
    let claims = |sid: &str| claims_of(Some(sid));
    assert!(!revoked.has(&claims("f")) && !revoked.has(&claims("g")));
    // The client disconnects immediately.
    {
        let mut order = pin!(store.end(named("f"), 2000, Everywhere::Yes));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(order.as_mut().poll(&mut nobody).is_pending());
    }
    store.purge(0).await.unwrap();
    assert!(revoked.has(&claims("f")) && revoked.has(&claims("g")));
    assert_eq!(
        (store.longest().access(), store.longest().any()),
        (300, 600)
    );
    drop(store);
    // A shorter lifetime makes nothing valid again.
    let store = reopened(directory.path(), Lives::default(), 3_000, &Arc::default()).await;
    assert_eq!(
        (store.longest().access(), store.longest().any()),
        (300, 600)
    );
}
