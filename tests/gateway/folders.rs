//! Folders of users' own (`root: ./data/{claim:sub}`): each sees what is his, and nobody what is another's.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::support::{Folder, Gateway, Kind, Reply, config, eventually, key, run_to_end, token};

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /my/*, auth: app, static: {root: './data/{claim:sub}', listing: true}}
  - {path: /unit/*, auth: app, static: {root: ['./shared', './data/{claim:org.unit}/files']}}
tests:
  - {request: GET /my/a.txt, expect: {status: 401}}
  - {request: GET /my/a.txt, claims: {sub: ada}, expect: {status: 200}}
  - {request: GET /my/a.txt, claims: {sub: eve}, expect: {status: 404}}
  - {request: GET /my/a.txt, claims: {sub: ../data/ada}, expect: {status: 403, reason: claim_unfit}}
  - {request: GET /my/a.txt, claims: {name: ada}, expect: {status: 403, reason: forbidden}}
";

fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("data/ada/a.txt", "ada's"),
        ("data/ada/a.txt.gz", "ada's, gzipped"),
        ("data/ada/sub/b.txt", "below"),
        ("data/eve/e.txt", "eve's"),
        ("data/eve/both.txt", "eve's"),
        ("data/ada/both.txt", "ada's"),
        ("data/.hidden/h.txt", "hidden"),
        ("data/top.txt", "nobody's"),
        ("data/x/files/f.txt", "the unit's"),
        ("shared/f.txt", "shared"),
        ("shared/s.txt", "shared"),
    ] {
        folder.write(name, content);
    }
    symlink("../eve/e.txt", folder.path("data/ada/neighbour.txt")).unwrap();
    symlink("../eve", folder.path("data/ada/next")).unwrap();
    folder
}

async fn start() -> Gateway {
    let values = [("secret", key(Kind::Secret, 0).public.as_str())];
    Gateway::start_in(site(), &config(TEXT, &values)).await
}

async fn get(gateway: &Gateway, path: &str, claims: serde_json::Value) -> Reply {
    let bearer = format!("Bearer {}", token(claims));
    gateway.get(path, &[("Authorization", &bearer)]).await
}

#[tokio::test]
async fn each_user_has_a_folder_and_no_other() {
    let gateway = start().await;
    let ada = || json!({"sub": "ada"});
    let eve = || json!({"sub": "eve"});
    for _ in 0..2 {
        for (claims, path, expected) in [
            (ada(), "/my/a.txt", Some("ada's")),
            (ada(), "/my/sub/b.txt", Some("below")),
            (ada(), "/my/both.txt", Some("ada's")),
            (eve(), "/my/both.txt", Some("eve's")),
            (eve(), "/my/e.txt", Some("eve's")),
            (eve(), "/my/a.txt", None),
            (ada(), "/my/e.txt", None),
            (ada(), "/my/neighbour.txt", None),
            (ada(), "/my/next/e.txt", None),
            (ada(), "/my/top.txt", None),
            (json!({"sub": "nobody"}), "/my/a.txt", None),
            (json!({"sub": "top.txt"}), "/my/a.txt", None),
        ] {
            let reply = get(&gateway, path, claims.clone()).await;
            match expected {
                Some(body) => {
                    assert_eq!(reply.text(), body, "{path} {claims}");
                    assert_eq!(reply.field("cache-control"), Some("private, no-cache"));
                }
                None => assert_eq!(reply.status, 404, "{path} {claims}"),
            }
        }
        // When all of it is kept.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    }
    let bearer = format!("Bearer {}", token(ada()));
    let fields = [
        ("Authorization", bearer.as_str()),
        ("Accept-Encoding", "gzip"),
    ];
    assert_eq!(
        gateway.get("/my/a.txt", &fields).await.text(),
        "ada's, gzipped"
    );
    let listing = get(&gateway, "/my/", ada()).await.text();
    assert!(
        listing.contains("./a.txt") && listing.contains("./sub/"),
        "{listing}"
    );
    assert!(
        !listing.contains("neighbour") && !listing.contains("next"),
        "{listing}"
    );
}

#[tokio::test]
async fn what_is_no_name_of_a_folder_is_refused() {
    let gateway = start().await;
    // Some of these are no valid `sub` to begin with.
    for claims in [
        json!({"sub": "../eve"}),
        json!({"sub": ".."}),
        json!({"sub": ".hidden"}),
        json!({"sub": "ada/sub"}),
        json!({"sub": ["ada"]}),
        json!({"sub": ""}),
        json!({"sub": null}),
    ] {
        let reply = get(&gateway, "/my/a.txt", claims.clone()).await;
        assert!(matches!(reply.status, 401 | 403), "{claims}");
    }
    for (at, (unit, status, reason)) in [
        (json!("x"), 200, None),
        (json!("y"), 404, Some("file_not_found")),
        (json!("../data/x"), 403, Some("claim_unfit")),
        (json!(".."), 403, Some("claim_unfit")),
        (json!(7), 403, Some("claim_unfit")),
        (json!(["x"]), 403, Some("claim_unfit")),
        (json!(null), 403, Some("forbidden")),
    ]
    .into_iter()
    .enumerate()
    {
        let claims = || json!({"org": {"unit": unit}});
        let path = format!("/unit/own{at}.txt");
        gateway
            .folder
            .write(&format!("data/x/files/own{at}.txt"), "own");
        let reply = get(&gateway, &path, claims()).await;
        assert_eq!(reply.status, status, "{unit}");
        assert_eq!(
            gateway.record(&path).await["reason"].as_str(),
            reason,
            "{unit}"
        );
        // Who has no folder's name gets nothing of the root before it, either.
        let shared = get(&gateway, "/unit/s.txt", claims()).await;
        let expected = if status == 403 { 403 } else { 200 };
        assert_eq!(shared.status, expected, "{unit}");
    }
    assert_eq!(get(&gateway, "/unit/f.txt", json!({})).await.status, 403);
    assert_eq!(gateway.get("/unit/f.txt", &[]).await.status, 401);
}

#[tokio::test]
async fn a_folder_that_comes_is_served() {
    let gateway = start().await;
    let new = || json!({"sub": "new"});
    assert_eq!(get(&gateway, "/my/n.txt", new()).await.status, 404);
    gateway.folder.write("data/new/n.txt", "new");
    assert_eq!(get(&gateway, "/my/n.txt", new()).await.text(), "new");
    std::fs::remove_dir_all(gateway.folder.path("data/new")).unwrap();
    eventually("the folder to be gone", async || {
        let reply = get(&gateway, "/my/n.txt", new()).await;
        (reply.status == 404).then_some(())
    })
    .await;
}

#[test]
fn explain_says_the_folder_and_mistakes_are_said() {
    let folder = site();
    let write = |text: &str| {
        let values = [("secret", key(Kind::Secret, 0).public.as_str())];
        folder.write("gateway.yaml", config(text, &values));
    };
    let run = |arguments: &[&str]| {
        let output = run_to_end(&folder, arguments, &[]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    write(TEXT);
    let text = run(&["test"]);
    assert!(text.contains("5 passed"), "{text}");
    let text = run(&["explain", "/my/a.txt", "--claims", "{\"sub\": \"ada\"}"]);
    assert!(text.contains("in the folder ada/ of this user"), "{text}");
    let (from, root) = (
        "auth: app, static: {root: './data/{claim:sub}'",
        "'./data/{claim:sub}'",
    );
    for (from, to, said) in [
        (
            "/my/*, auth: app",
            "/my/*, auth: none",
            "may come without claims",
        ),
        ("/my/*, auth: app", "/my/*", "may come without claims"),
        (
            "/my/*, auth: app",
            "/my/*, auth: {jwt: app, optional: true}",
            "may come without claims",
        ),
        (
            "/my/*, auth: app",
            "/my/*, auth: {jwt: app, enforce: report}",
            "may come without claims",
        ),
        (
            "/my/*, auth: app",
            "/my/*, auth: {ask: 'http://127.0.0.1:9/x'}",
            "may come without claims",
        ),
        (
            root,
            "'./data/u-{claim:sub}'",
            "a claim is a whole segment of a root",
        ),
        (root, "'./data/{claim:sub}/../x'", "plain names"),
        (root, "'./none/{claim:sub}'", "none` cannot be served"),
        (
            from,
            "auth: app, static: {root: ['./data/{claim:sub}', './data/{claim:sub}']",
            "is here twice",
        ),
    ] {
        write(&TEXT.replacen(from, to, 1));
        let text = run(&["check"]);
        assert!(text.contains(said), "{said}: {text}");
    }
}
