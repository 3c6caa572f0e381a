//! Listings of directories, over the wire: for people and for programs, for everybody and behind a guard.

use serde_json::{Value, json};

use super::support::{Folder, Gateway, H2, Kind, config, key, request, run_to_end, token};

const TEXT: &str = "jwt: {app: {algorithms: [HS256], secret: '@secret'}}
routes:
  - {path: /*, static: ./site, auth: none}
  - {path: /files/*, static: {root: ./site, listing: true}, auth: none}
  - {path: /closed/*, static: {root: ./site, listing: true, untrusted: true}, auth: app}
tests:
  - {request: GET /files/sub/, expect: {status: 200}}
  - {request: GET /sub/, expect: {status: 404, reason: file_not_found}}
  - {request: GET /closed/sub/, expect: {status: 401}}
";

fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("site/sub/a.txt", "a"),
        ("site/sub/.env", "SECRET=1"),
        ("site/sub/<script>alert(1)</script>.txt", "x"),
        ("site/sub/\u{444} ?#.txt", "odd"),
        ("site/index.html", "<p>home"),
    ] {
        // The name has a slash in it, which no name can have.
        folder.write(&name.replace("</", "<|"), content);
    }
    folder
}

async fn start() -> Gateway {
    let values = [("secret", key(Kind::Secret, 0).public.as_str())];
    Gateway::start_in(site(), &config(TEXT, &values)).await
}

#[tokio::test]
async fn a_directory_is_listed_where_the_route_says_so() {
    let gateway = start().await;
    let reply = gateway.get("/files/sub/", &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("cache-control"), Some("no-cache"));
    assert_eq!(reply.all("vary"), ["Accept"]);
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
    let text = reply.text();
    assert!(
        !text.contains("<script") && text.contains("&lt;script&gt;"),
        "{text}"
    );
    assert!(!text.contains(".env"));
    // Each address leads to its file.
    for address in text.split("href=\"./").skip(1) {
        let address = address.split('"').next().unwrap();
        let reply = gateway.get(&format!("/files/sub/{address}"), &[]).await;
        assert_eq!(reply.status, 200, "{address}");
    }
    let json = [("accept", "application/json")];
    let mut client = H2::connect(gateway.address()).await;
    let reply = client.get("/files/sub/?sort=name&order=desc", &json).await;
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let listed: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(listed[0]["name"], "\u{444} ?#.txt");
    assert_eq!(listed[1]["name"], "a.txt");
    assert_eq!(
        (&listed[1]["type"], &listed[1]["size"]),
        (&json!("file"), &json!(1))
    );
    let mut wire = gateway.connect().await;
    wire.send(request("HEAD", "/files/sub/", &[], "")).await;
    let length = text.len().to_string();
    assert_eq!(wire.head().await.field("content-length"), Some(&*length));
    assert_eq!(wire.get("/files/", &[]).await.text(), "<p>home");
}

#[tokio::test]
async fn it_is_off_by_default_and_guarded_like_the_files() {
    let gateway = start().await;
    assert_eq!(gateway.get("/sub/", &[]).await.status, 404);
    assert_eq!(gateway.get("/files/none/", &[]).await.status, 404);
    assert_eq!(gateway.get("/closed/sub/", &[]).await.status, 401);
    let bearer = format!("Bearer {}", token(json!({})));
    let reply = gateway
        .get("/closed/sub/", &[("Authorization", &bearer)])
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("cache-control"), Some("private, no-cache"));
    assert_eq!(reply.all("content-security-policy").len(), 1);
    let mut wire = gateway.connect().await;
    wire.send(request("POST", "/files/sub/", &[], "")).await;
    assert_eq!(wire.reply().await.status, 405);
}

#[test]
fn explain_and_policy_tests_know_listings() {
    let folder = site();
    let values = [("secret", key(Kind::Secret, 0).public.as_str())];
    folder.write("gateway.yaml", config(TEXT, &values));
    let output = run_to_end(&folder, &["test"], &[]);
    assert!(output.status.success(), "{output:?}");
    let output = run_to_end(&folder, &["explain", "/files/sub/"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("file       the directory has no index"),
        "{text}"
    );
    assert!(text.contains("answer     200 with a listing"), "{text}");
    let output = run_to_end(&folder, &["explain", "/sub/"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("404"), "{text}");
}
