//! The access log in a file: nothing is lost when the file is moved away, with SIGUSR1 or without.

use std::fs;

use rustix::process::Signal;

use super::support::{Folder, Gateway, config, eventually};

#[tokio::test]
async fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let text = config(
        "log: {access: {to: access.log, format: json}}\nroutes: [{path: /*, respond: {status: 204}}]\n",
        &[],
    );
    let gateway = Gateway::start_in(Folder::new(), &text).await;
    let lines = |name: &str| fs::read_to_string(gateway.folder.path(name)).unwrap_or_default();
    let logged = async |path: &str| {
        assert_eq!(gateway.get(path, &[]).await.status, 204);
        eventually("the line", async || {
            lines("access.log")
                .contains(&format!("\"path\":\"{path}\""))
                .then_some(())
        })
        .await;
    };
    logged("/first").await;
    for (moved, signal) in [("one.log", None), ("two.log", Some(Signal::USR1))] {
        fs::rename(
            gateway.folder.path("access.log"),
            gateway.folder.path(moved),
        )
        .unwrap();
        if let Some(signal) = signal {
            gateway.signal(signal);
        }
        let path = format!("/after-{moved}");
        logged(&path).await;
        assert!(!lines(moved).contains(&path), "{moved}");
    }
    // It stays where it is, and so do its lines.
    gateway.signal(Signal::USR1);
    logged("/last").await;
    assert!(lines("access.log").contains("/after-two.log"));
}
