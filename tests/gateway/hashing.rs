//! `balance: hash`: a value of the request decides on the server.

use serde_json::json;

use super::support::{Answer, App, Folder, Gateway, Kind, config, key, request, run_to_end, token};

async fn apps() -> Vec<App> {
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(App::start(|_| Answer::Ok("ok")).await);
    }
    apps
}

fn text(balance: &str, path: &str, more: &str, apps: &[App]) -> String {
    let urls: Vec<String> = apps.iter().map(|app| format!("'{}'", app.url())).collect();
    let text = format!(
        "workers: 2\nupstreams: {{app: {{servers: [{}], balance: '{balance}'{more}}}}}\n\
         routes: [{{path: '{path}', proxy: app, auth: none}}]\n",
        urls.join(", ")
    );
    config(&text, &[])
}

/// Which app gets a request with these fields.
async fn who(gateway: &Gateway, apps: &[App], target: &str, fields: &[(&str, &str)]) -> usize {
    let before: Vec<usize> = apps.iter().map(App::requests).collect();
    assert_eq!(gateway.get(target, fields).await.status, 200);
    let mut now = apps.iter().map(App::requests).zip(before);
    now.position(|(now, before)| now > before).unwrap()
}

#[tokio::test]
async fn a_value_has_its_server_whichever_worker_serves_and_after_every_reload() {
    let apps = apps().await;
    let gateway = Gateway::start(&text("hash:header:X-User", "/*", "", &apps)).await;
    let users: Vec<String> = (0..24).map(|nth| format!("user-{nth}")).collect();
    let mut owners = Vec::new();
    for user in &users {
        let owner = who(&gateway, &apps, "/", &[("X-User", user)]).await;
        for _ in 0..3 {
            assert_eq!(who(&gateway, &apps, "/", &[("X-User", user)]).await, owner);
        }
        owners.push(owner);
    }
    for at in 0..3 {
        assert!(
            owners.iter().filter(|owner| **owner == at).count() > 2,
            "{owners:?}"
        );
    }
    // Another order, other settings, another process: the same owners.
    let urls: Vec<String> = apps
        .iter()
        .rev()
        .map(|app| format!("'{}'", app.url()))
        .collect();
    let other = config(
        &format!(
            "workers: 1\nupstreams: {{other: {{servers: [{}], balance: 'hash:header:x-user', retries: off}}}}\n\
             routes: [{{path: /*, proxy: other, auth: none}}]\n",
            urls.join(", ")
        ),
        &[],
    );
    let second = Gateway::start(&other).await;
    for (user, owner) in users.iter().zip(&owners) {
        assert_eq!(who(&second, &apps, "/", &[("X-User", user)]).await, *owner);
    }
    // Without the field, or with two: in turn.
    let mut turns = Vec::new();
    for nth in 0..6 {
        let fields: &[_] = if nth < 3 {
            &[]
        } else {
            &[("X-User", "a"), ("X-User", "b")]
        };
        let mut wire = second.connect().await;
        let before: Vec<usize> = apps.iter().map(App::requests).collect();
        wire.send(request("GET", "/", fields, "")).await;
        assert_eq!(wire.reply().await.status, 200);
        let mut now = apps.iter().map(App::requests).zip(before);
        turns.push(now.position(|(now, before)| now > before).unwrap());
    }
    turns.sort_unstable();
    assert_eq!(turns, [0, 0, 1, 1, 2, 2]);
}

#[tokio::test]
async fn who_loses_its_server_goes_on_and_nobody_else_moves() {
    let mut apps = apps().await;
    let more = ", eject: {consecutive_failures: 1, for: 1h, longest: 1h}";
    let gateway = Gateway::start(&text("hash:cookie:sid", "/*", more, &apps)).await;
    let mut owners = Vec::new();
    for nth in 0..18 {
        let cookie = format!("a=1; sid=session-{nth}");
        owners.push((
            cookie.clone(),
            who(&gateway, &apps, "/", &[("Cookie", &cookie)]).await,
        ));
    }
    apps.pop().unwrap().stop().await;
    for (cookie, owner) in &owners {
        let now = who(&gateway, &apps, "/", &[("Cookie", cookie)]).await;
        assert!(now == *owner || *owner == 2, "{cookie}");
        assert_eq!(who(&gateway, &apps, "/", &[("Cookie", cookie)]).await, now);
    }
}

#[tokio::test]
async fn addresses_parameters_and_claims_decide() {
    let apps = apps().await;
    let gateway = Gateway::start(&text("hash:ip", "/*", "", &apps)).await;
    let first = who(&gateway, &apps, "/", &[]).await;
    for _ in 0..5 {
        assert_eq!(who(&gateway, &apps, "/", &[]).await, first);
    }
    let gateway = Gateway::start(&text("hash:path:room", "/rooms/{room}/*", "", &apps)).await;
    let mut seen = std::collections::BTreeSet::new();
    for room in 0..12 {
        let target = |end: &str| format!("/rooms/r{room}/{end}");
        let owner = who(&gateway, &apps, &target("a"), &[]).await;
        assert_eq!(who(&gateway, &apps, &target("b/c"), &[]).await, owner);
        seen.insert(owner);
    }
    assert_eq!(seen.len(), 3);

    let urls: Vec<String> = apps.iter().map(|app| format!("'{}'", app.url())).collect();
    let text = format!(
        "jwt: {{it: {{algorithms: [HS256], secret: '@secret'}}}}\n\
         upstreams: {{app: {{servers: [{}], balance: 'hash:claim:sub'}}}}\n\
         routes: [{{path: /*, proxy: app, auth: it}}]\n",
        urls.join(", ")
    );
    let text = config(&text, &[("secret", &key(Kind::Secret, 0).public)]);
    let gateway = Gateway::start(&text).await;
    let mut seen = std::collections::BTreeSet::new();
    for nth in 0..12 {
        let bearer = format!("Bearer {}", token(json!({"sub": format!("user-{nth}")})));
        let fields = [("Authorization", bearer.as_str())];
        let owner = who(&gateway, &apps, "/", &fields).await;
        assert_eq!(who(&gateway, &apps, "/x", &fields).await, owner);
        seen.insert(owner);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_a_route_does_not_have_is_an_error_at_the_key_and_explain_says_the_rest() {
    let run = |command: &[&str], balance: &str, path: &str| {
        let folder = Folder::new();
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nupstreams: {{app: {{servers: ['http://127.0.0.1:9', 'http://127.0.0.1:8'], balance: '{balance}'}}}}\n\
             routes: [{{path: '{path}', proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", text);
        let output = run_to_end(&folder, command, &[]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    for (balance, said) in [
        (
            "hash:claim:sub",
            "the route /* has no token whose claim this could be",
        ),
        ("hash:path:user", "the route /* has no parameter `user`"),
        ("hash:header", "write `header:NAME`"),
        ("hash:", "known here: ip, header, cookie"),
        ("hash:hedder:x", "did you mean `header`"),
        ("hash", "hash:SOURCE"),
        ("least_request", "did you mean `least_requests`"),
    ] {
        let (code, errors) = run(&["check"], balance, "/*");
        assert_eq!(code, Some(2), "{balance}: {errors}");
        assert!(errors.contains(said), "{balance}: {errors}");
    }
    let (code, errors) = run(&["check"], "hash:ip', slow_start: '30s", "/*");
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("`slow_start` with `balance: hash`"),
        "{errors}"
    );
    let (_, said) = run(&["explain", "GET", "/"], "hash:header:X-User", "/*");
    assert!(
        said.contains("hash:header:x-user of http://127.0.0.1:9, http://127.0.0.1:8"),
        "{said}"
    );
}
