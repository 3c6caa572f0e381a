//! `portcullis cert`: certificates for local development, and in `ordered` those that the gateway orders itself.

pub(super) mod local;
mod ordered;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use self::local::{LocalCa, LocalFault, LocalName, Written};
use self::ordered::Format;
use super::tokens::exit;
use super::{bad, failed, say};
use crate::clock;

/// How long a certificate is valid.
const LIFETIME: Duration = Duration::from_hours(365 * 24);

/// The arguments of `cert`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate for this machine or a private network, and a CA for it that can sign nothing else.
    #[command(after_help = "Examples:
  portcullis cert local
  portcullis cert local app.localhost '*.app.test' 192.168.1.20

Without names it is for localhost, 127.0.0.1 and ::1. No trust store is touched; how to trust the root is printed.

Exit codes: 0 made, 1 a file is in the way or cannot be written, 2 a name that is not local.")]
    Local(LocalArguments),
    /// Show the certificates by ACME: names, issuer, expiry, next renewal, last error.
    #[command(after_help = "Examples:
  portcullis cert list
  portcullis cert list --format json | jq '.certificates[].expires'")]
    List {
        /// The output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Ask the running gateway to renew a certificate by ACME now, whatever it waits for.
    #[command(after_help = "Examples:
  portcullis cert renew www.example.com
  portcullis cert renew '*.example.com' -c /etc/portcullis/gateway.yaml")]
    Renew {
        /// One of its names.
        name: String,
    },
}

/// The arguments of `cert local`.
#[derive(Debug, clap::Args)]
pub(super) struct LocalArguments {
    /// Names below .localhost, .test and .internal, perhaps with a star; loopback and private addresses.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The directory of the files; certs/ beside the configuration by default.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Overwrite files that this CA did not make.
    #[arg(long)]
    force: bool,
}

/// Makes, shows or renews certificates: exits with 0 where done, 1 where that failed, 2 where a name is not local, or the
/// configuration has errors or orders none.
pub(super) fn cert(command: CertCommand, config: &Path) -> ExitCode {
    match command {
        CertCommand::Local(arguments) => make_local(arguments, config),
        CertCommand::List { format } => exit(ordered::list(format, config)),
        CertCommand::Renew { name } => exit(ordered::renew(&name, config)),
    }
}

fn make_local(arguments: LocalArguments, config: &Path) -> ExitCode {
    let mut names = arguments.names;
    if names.is_empty() {
        names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    }
    let parsed: Result<Vec<LocalName>, String> = names.iter().map(|name| name.parse()).collect();
    let names = match parsed {
        Ok(names) => names,
        Err(why) => return bad(why),
    };
    let certs = arguments.dir;
    let certs = certs.unwrap_or_else(|| config.with_file_name("certs"));
    match make(&certs, &names, arguments.force) {
        Ok(text) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Err(fault) => failed(fault),
    }
}

fn make(certs: &Path, names: &[LocalName], force: bool) -> Result<String, LocalFault> {
    let now = clock::now();
    let ca = LocalCa::open(certs, now)?;
    let stem = names.first().map(LocalName::stem).unwrap_or_default();
    let written = ca.issue(&stem, names, LIFETIME, now, force)?;
    Ok(told(certs, names, &written))
}

/// What was made, what to write into the configuration, and how to trust the root.
fn told(certs: &Path, names: &[LocalName], written: &Written) -> String {
    let all: Vec<String> = names.iter().map(ToString::to_string).collect();
    let (cert, key) = (written.cert.display(), written.key.display());
    let root = LocalCa::root(certs);
    let root = root.display();
    let made = if written.replaced { "replaced" } else { "made" };
    let host = all.iter().find(|name| !name.starts_with('*'));
    let url = match host.map(String::as_str) {
        Some(address) if address.contains(':') => format!("https://[{address}]/"),
        Some(name) => format!("https://{name}/"),
        None => "https://...".to_owned(),
    };
    let mut text = format!(
        "{cert} and {key} are {made}: for {}, valid for {} days.\n",
        all.join(", "),
        LIFETIME.as_secs() / (24 * 60 * 60)
    );
    let lines = [
        (
            "In the configuration",
            format!("tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}"),
        ),
        ("curl", format!("curl --cacert {root} {url}")),
        (
            "Node, Python",
            format!("NODE_EXTRA_CA_CERTS={root}  SSL_CERT_FILE={root}"),
        ),
        (
            "Debian, Ubuntu",
            format!(
                "sudo cp {root} /usr/local/share/ca-certificates/portcullis-local.crt && sudo update-ca-certificates"
            ),
        ),
        ("Fedora, Arch", format!("sudo trust anchor {root}")),
        (
            "macOS",
            format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {root}"
            ),
        ),
        (
            "Chromium on Linux",
            format!("certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n portcullis-local -i {root}"),
        ),
        (
            "Firefox",
            format!("Settings, Certificates, View Certificates, Authorities, Import: {root}"),
        ),
    ];
    for (at, (label, line)) in lines.iter().enumerate() {
        if at == 1 {
            text.push_str("\nTo trust the root (this command changed nothing about that):\n");
        }
        text.push_str(&format!("  {label:20}  {line}\n"));
    }
    text.push_str(&format!(
        "\nThe root's key no longer exists. What signs is {}, for localhost, .localhost, .test, .internal, loopback and \
         private addresses alone.\n",
        LocalCa::signing_key(certs).display()
    ));
    text
}
