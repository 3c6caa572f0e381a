//! Becoming the configuration's `user`: once, when the sockets are bound and before there is a second thread. Root is
//! given up for good, and that is proved: who takes over a worker is not root, and cannot become it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::privilege::User;

/// How long threads that are about to end are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const PAUSE: Duration = Duration::from_millis(2);
/// This process's threads.
const THREADS: &str = "/proc/self/task";

/// Why the process cannot become a user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserFault {
    /// It is neither root nor that user.
    #[error("only root can become `{0}`, and this process is not root")]
    NotRoot(String),
    /// There are other threads, which would stay root.
    #[error("cannot become `{user}` while other threads run ({threads}){remedy}")]
    NotAlone {
        /// The user.
        user: String,
        /// Their names.
        threads: String,
        /// What to do about them.
        remedy: &'static str,
    },
    /// The system refuses.
    #[error("cannot become `{user}`: {step}: {error}")]
    Refused {
        /// The user.
        user: String,
        /// What it refuses.
        step: &'static str,
        /// Its reason.
        error: std::io::Error,
    },
    /// It is not certain that root is gone.
    #[error("this process may still be root, so it does not serve: {0}")]
    Unproved(String),
}

/// Becomes a user for good: groups, group and user, one privilege that is left (ports below 1024, for a reload), no new
/// ones. Nothing where the process is that user already. Returns whether it became it.
///
/// # Errors
/// It cannot, or cannot prove it. Then the process must end.
#[cfg(target_os = "linux")]
pub(crate) fn become_user(user: &User) -> Result<bool, UserFault> {
    use rustix::process::{Gid, Uid, geteuid};
    use rustix::thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    };

    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if user.is_here() {
        return Ok(false);
    }
    if !geteuid().is_root() {
        return Err(UserFault::NotRoot(user.name.clone()));
    }
    alone(user)?;
    let refused = |step: &'static str, error: rustix::io::Errno| UserFault::Refused {
        user: user.name.clone(),
        step,
        error: error.into(),
    };
    let step = |step, done: rustix::io::Result<()>| done.map_err(|error| refused(step, error));
    let rights = capabilities(None).map_err(|error| refused("its capabilities", error))?;
    let kept = rights.permitted & CapabilitySet::NET_BIND_SERVICE;
    for (name, other) in (CapabilitySet::all() - CapabilitySet::NET_BIND_SERVICE).iter_names() {
        // Where it is not allowed to, `no_new_privs` has the same effect: nothing that it starts gains any.
        if let Err(error) = remove_capability_from_bounding_set(other) {
            tracing::debug!(name, %error, "a capability stays in the bounding set");
        }
    }
    step("keeping a capability", set_keep_capabilities(true))?;
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    step("its groups", set_thread_groups(&groups))?;
    step("its group", set_thread_res_gid(gid, gid, gid))?;
    step("its id", set_thread_res_uid(uid, uid, uid))?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    step("its capabilities", set_capabilities(None, sets))?;
    step("keeping a capability", set_keep_capabilities(false))?;
    step("ambient capabilities", clear_ambient_capability_set())?;
    step("no new privileges", set_no_new_privs(true))?;
    prove(user)?;
    Ok(true)
}

/// Ids of threads are Linux's.
#[cfg(not(target_os = "linux"))]
pub(crate) fn become_user(user: &User) -> Result<bool, UserFault> {
    if user.is_here() {
        return Ok(false);
    }
    Err(UserFault::Refused {
        user: user.name.clone(),
        step: "`user`",
        error: std::io::ErrorKind::Unsupported.into(),
    })
}

/// Gives up the privilege that [`become_user`] leaves, in a thread that serves clients: it binds nothing.
///
/// # Errors
/// The system refuses.
#[cfg(target_os = "linux")]
pub(super) fn give_up_the_last() -> std::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    Ok(())
}

/// Capabilities are Linux's.
#[cfg(not(target_os = "linux"))]
pub(super) fn give_up_the_last() -> std::io::Result<()> {
    Ok(())
}

/// Waits until this is the only thread. Those that read files end by themselves.
#[cfg(target_os = "linux")]
fn alone(user: &User) -> Result<(), UserFault> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut names = Vec::new();
        for (_, thread) in threads("comm")? {
            names.push(thread.trim().to_owned());
        }
        if names.len() <= 1 {
            return Ok(());
        }
        if Instant::now() >= until {
            let reads = names.iter().any(|name| name == "file-system");
            names.sort();
            return Err(UserFault::NotAlone {
                user: user.name.clone(),
                threads: names.join(", "),
                remedy: if reads {
                    ": a file of the configuration is still being read, and its file system does not answer"
                } else {
                    ""
                },
            });
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing else runs yet, no worker and no runtime's task"
        )]
        std::thread::sleep(PAUSE);
    }
}

/// Proves that every thread of the process is this user's, and has one capability at most.
///
/// # Errors
/// One is not, or it cannot be known.
fn prove(user: &User) -> Result<(), UserFault> {
    let threads = threads("status")?;
    if threads.is_empty() {
        return Err(UserFault::Unproved(format!("{THREADS} is empty")));
    }
    for (thread, status) in threads {
        if let Some(wrong) = wrong(&status, user) {
            return Err(UserFault::Unproved(format!("thread {thread}: {wrong}")));
        }
    }
    Ok(())
}

/// A file of each thread: its number and the file's text. Threads that end meanwhile are left out.
fn threads(file: &str) -> Result<Vec<(String, String)>, UserFault> {
    let unknown = |error: std::io::Error| UserFault::Unproved(format!("{THREADS}: {error}"));
    let mut threads = Vec::new();
    for entry in fs::read_dir(THREADS).map_err(unknown)? {
        let name = entry.map_err(unknown)?.file_name();
        let path = Path::new(THREADS).join(&name);
        match fs::read_to_string(path.join(file)) {
            Ok(text) => threads.push((name.to_string_lossy().into_owned(), text)),
            Err(_) if !path.exists() => {}
            Err(error) => return Err(unknown(error)),
        }
    }
    Ok(threads)
}

/// What is wrong with a thread by its status (proc(5)); `None` where it is the user's.
fn wrong(status: &str, user: &User) -> Option<String> {
    /// The bit of CAP_NET_BIND_SERVICE.
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let value = |name: &str| {
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let said = |name: &str| format!("{name} is {}", value(name).unwrap_or("unknown"));
    let ids = |name: &str| -> Option<Vec<u32>> {
        let words = value(name)?.split_ascii_whitespace();
        words.map(|word| word.parse().ok()).collect()
    };
    for (name, id) in [("Uid", user.uid), ("Gid", user.gid)] {
        // Real, effective, saved, and of the file system.
        if ids(name) != Some(vec![id; 4]) {
            return Some(said(name));
        }
    }
    let mut groups = user.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    if ids("Groups") != Some(groups) {
        return Some(said("Groups"));
    }
    for (name, allowed) in [
        ("CapInh", 0),
        ("CapPrm", NET_BIND_SERVICE),
        ("CapEff", NET_BIND_SERVICE),
        ("CapAmb", 0),
    ] {
        let rights = value(name).and_then(|it| u64::from_str_radix(it, 16).ok());
        if rights.is_none_or(|rights| rights & !allowed != 0) {
            return Some(said(name));
        }
    }
    (value("NoNewPrivs") != Some("1")).then(|| said("NoNewPrivs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tworker-0\nUmask:\t0022\nUid:\t33\t33\t33\t33\nGid:\t34\t34\t34\t34\nGroups:\t34 50 \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n\
        CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    fn user() -> User {
        User {
            name: "www-data".to_owned(),
            uid: 33,
            group: "web".to_owned(),
            gid: 34,
            groups: vec![50, 34, 34],
        }
    }

    #[test]
    fn whatever_is_left_of_root_is_found() {
        assert_eq!(wrong(STATUS, &user()), None);
        let none = STATUS.replace("0000000000000400", "0000000000000000");
        assert_eq!(wrong(&none, &user()), None, "it had not even that one");
        for (was, is, name) in [
            (
                "Uid:\t33\t33\t33\t33",
                "Uid:\t33\t33\t0\t33",
                "Uid is 33\t33\t0\t33",
            ),
            ("Uid:\t33\t33\t33\t33", "Uid:\t0\t33\t33\t33", "Uid is"),
            ("Uid:\t33\t33\t33\t33", "Uid:\t33\t33\t33", "Uid is"),
            ("Gid:\t34\t34\t34\t34", "Gid:\t34\t34\t34\t0", "Gid is"),
            ("Groups:\t34 50", "Groups:\t0 34 50", "Groups is 0 34 50"),
            ("Groups:\t34 50", "Groups:\t34", "Groups is 34"),
            (
                "CapPrm:\t0000000000000400",
                "CapPrm:\t0000000000000480",
                "CapPrm is",
            ),
            (
                "CapEff:\t0000000000000400",
                "CapEff:\t0000000000000401",
                "CapEff is",
            ),
            (
                "CapInh:\t0000000000000000",
                "CapInh:\t0000000000000400",
                "CapInh is",
            ),
            (
                "CapAmb:\t0000000000000000",
                "CapAmb:\t0000000000000400",
                "CapAmb is",
            ),
            ("CapAmb:\t0000000000000000\n", "", "CapAmb is unknown"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs is 0"),
            ("NoNewPrivs:\t1\n", "", "NoNewPrivs is unknown"),
        ] {
            let status = STATUS.replace(was, is);
            let found = wrong(&status, &user()).unwrap_or_default();
            assert!(found.starts_with(name), "{is}: {found:?}");
        }
    }

    #[test]
    fn this_process_is_not_a_user_that_it_is_not() {
        assert!(matches!(prove(&user()), Err(UserFault::Unproved(_))));
    }
}
