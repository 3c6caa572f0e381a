//! A development CA in a directory: a root whose key is thrown away, an intermediate that may sign for this machine and
//! private networks alone, and certificates for names there. It touches no trust store, and the gateway knows nothing of
//! it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};

use crate::net::tls::CertificatePair;
use crate::tokens::write_private;

/// The directory of the CA, below that of the certificates.
const DIRECTORY: &str = "local-ca";
/// How long the root and the intermediate are valid: who trusts the root does so once.
const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// How long before now everything begins, for clocks that are behind.
const BEFORE: Duration = Duration::from_hours(1);
/// The domains below which names may be (RFC 6761, and ICANN's reservation of `internal` of 2024).
const DOMAINS: [&str; 3] = ["localhost", "test", "internal"];
/// Loopback and private networks (RFC 1122, RFC 1918, RFC 4193).
const NETWORKS: [(&str, u8); 6] = [
    ("127.0.0.0", 8),
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("::1", 128),
    ("fc00::", 7),
];

/// A name or address that a local certificate may be for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli) enum LocalName {
    /// `localhost`, or a name below one of [`DOMAINS`], perhaps with `*.` before it.
    Dns(String),
    /// A loopback or private address.
    Address(IpAddr),
}

impl LocalName {
    /// The name in a file's name.
    pub(in crate::cli) fn stem(&self) -> String {
        match self {
            Self::Dns(name) => name.replace('*', "_"),
            Self::Address(address) => address.to_string().replace(':', "-"),
        }
    }
}

impl std::fmt::Display for LocalName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for LocalName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let is_local = match address {
                IpAddr::V4(it) => it.is_loopback() || it.is_private(),
                IpAddr::V6(it) => it.is_loopback() || it.is_unique_local(),
            };
            return if is_local {
                Ok(Self::Address(address))
            } else {
                Err(format!(
                    "{address} is neither a loopback nor a private address"
                ))
            };
        }
        let name = text.to_ascii_lowercase();
        let plain = name.strip_prefix("*.").unwrap_or(&name);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || it == b'-')
        };
        if plain.len() > 253 || !plain.split('.').all(is_label) {
            return Err(format!("`{text}` is neither a host name nor an IP address"));
        }
        let last = plain.rsplit('.').next().unwrap_or_default();
        if !DOMAINS.contains(&last) {
            return Err(format!(
                "`{text}` is no local name: localhost is, and names below .localhost, .test and .internal"
            ));
        }
        if plain == last && name != "localhost" {
            return Err(format!(
                "`{text}`: no client accepts a certificate for all of .{plain}; write the names, or `*.app.{plain}`"
            ));
        }
        Ok(Self::Dns(name))
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum LocalFault {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The CA that is there is not whole, does not fit its key, or has expired.
    #[error(
        "{}: {why}; remove the directory to get a new CA, whose root has to be trusted anew", directory.display()
    )]
    Authority {
        /// Its directory.
        directory: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file is there that this CA did not make.
    #[error("{} is there, and this CA did not make it: move it away, or overwrite it with --force", .0.display())]
    Foreign(PathBuf),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
}

fn file_fault(path: &Path) -> impl FnOnce(io::Error) -> LocalFault {
    |source| LocalFault::File {
        path: path.to_owned(),
        source,
    }
}

/// The development CA of a directory of certificates.
pub(in crate::cli) struct LocalCa {
    certs: PathBuf,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was written.
#[derive(Debug)]
pub(in crate::cli) struct Written {
    /// The chain, without the root.
    pub(in crate::cli) cert: PathBuf,
    /// Its key.
    pub(in crate::cli) key: PathBuf,
    /// Whether it took the place of an older one.
    pub(in crate::cli) replaced: bool,
}

impl LocalCa {
    /// The CA below this directory, which is made where there is none, with the directory.
    ///
    /// # Errors
    /// It cannot be read or written, or is not usable any more.
    pub(in crate::cli) fn open(certs: &Path, now: SystemTime) -> Result<Self, LocalFault> {
        let directory = certs.join(DIRECTORY);
        if !directory.exists() {
            private_directory(certs)?;
            Self::make(certs, &directory, now)?;
        }
        let authority = |why: String| LocalFault::Authority {
            directory: directory.clone(),
            why,
        };
        let read = |name: &str| {
            let read = fs::read_to_string(directory.join(name));
            read.map_err(|error| authority(format!("{name}: {error}")))
        };
        let (intermediate, key) = (read("intermediate.pem")?, read("intermediate.key")?);
        let pair = CertificatePair::from_pem(intermediate.as_bytes(), key.as_bytes());
        let pair = pair.map_err(|fault| authority(fault.to_string()))?;
        if let Some(warning) = pair.warnings(now).first() {
            return Err(authority(format!("intermediate.pem: {warning}")));
        }
        read("root.pem")?;
        let issuer = KeyPair::from_pem(&key)
            .and_then(|key| Issuer::from_ca_cert_pem(&intermediate, key))
            .map_err(|error| authority(error.to_string()))?;
        Ok(Self {
            certs: certs.to_owned(),
            intermediate,
            issuer,
        })
    }

    /// Makes root and intermediate. The directory appears whole or not at all.
    fn make(certs: &Path, directory: &Path, now: SystemTime) -> Result<(), LocalFault> {
        let mut id = [0; 4];
        getrandom::fill(&mut id)
            .map_err(|error| file_fault(directory)(io::Error::other(error.to_string())))?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let authority = |name: &str, below| {
            let mut params = params_of(&format!("Portcullis {name} {id}"), CA_LIFETIME, now);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let root_key = KeyPair::generate()?;
        let root_params = authority("development root", 1);
        let root = root_params.self_signed(&root_key)?;
        let mut params = authority("development CA", 0);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Not in the root: what constrains a trust anchor is not enforced everywhere (RFC 5280 section 6.1).
        params.name_constraints = Some(constraints());
        let key = KeyPair::generate()?;
        // The last use of the root's key, which was in this function's memory alone.
        let issuer = Issuer::from_params(&root_params, root_key);
        let intermediate = params.signed_by(&key, &issuer)?;
        let beside = tempfile::Builder::new()
            .prefix(".local-ca")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(certs)
            .map_err(file_fault(certs))?;
        for (name, text) in [
            ("root.pem", root.pem()),
            ("intermediate.pem", intermediate.pem()),
            ("intermediate.key", key.serialize_pem()),
        ] {
            let path = beside.path().join(name);
            write_private(&path, text.as_bytes()).map_err(file_fault(&path))?;
        }
        match fs::rename(beside.path(), directory) {
            // Another process has made one meanwhile.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            renamed => renamed.map_err(file_fault(directory)),
        }
    }

    /// The root's certificate, which clients have to trust.
    pub(in crate::cli) fn root(certs: &Path) -> PathBuf {
        certs.join(DIRECTORY).join("root.pem")
    }

    /// The key that signs.
    pub(in crate::cli) fn signing_key(certs: &Path) -> PathBuf {
        certs.join(DIRECTORY).join("intermediate.key")
    }

    /// Writes `STEM.pem` and `STEM.key`: a certificate for these names with a new key. Files that this CA has not made
    /// are replaced only by `force`.
    ///
    /// # Errors
    /// There is such a file, or one cannot be written.
    pub(in crate::cli) fn issue(
        &self,
        stem: &str,
        names: &[LocalName],
        lifetime: Duration,
        now: SystemTime,
        force: bool,
    ) -> Result<Written, LocalFault> {
        let (cert, key) = (self.file(stem, "pem"), self.file(stem, "key"));
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let replaced = is_there(&cert) || is_there(&key);
        if replaced && !force && !self.has_made(stem) {
            let foreign = if is_there(&cert) { cert } else { key };
            return Err(LocalFault::Foreign(foreign));
        }
        let mut params = params_of("Portcullis development", lifetime, now);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        for name in names {
            params.subject_alt_names.push(match name {
                LocalName::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                LocalName::Address(address) => SanType::IpAddress(*address),
            });
        }
        let pair = KeyPair::generate()?;
        let chain = params.signed_by(&pair, &self.issuer)?.pem() + &self.intermediate;
        for (path, text) in [(&key, pair.serialize_pem()), (&cert, chain)] {
            write_private(path, text.as_bytes()).map_err(file_fault(path))?;
        }
        Ok(Written {
            cert,
            key,
            replaced,
        })
    }

    /// Whether both files of this stem are there, and this CA has made the certificate.
    pub(in crate::cli) fn has_made(&self, stem: &str) -> bool {
        let chain = fs::read_to_string(self.file(stem, "pem"));
        chain.is_ok_and(|chain| chain.ends_with(&self.intermediate))
            && self.file(stem, "key").is_file()
    }

    fn file(&self, stem: &str, kind: &str) -> PathBuf {
        self.certs.join(format!("{stem}.{kind}"))
    }
}

/// A certificate that begins now; what it may be used for is added by the caller.
fn params_of(name: &str, lifetime: Duration, now: SystemTime) -> CertificateParams {
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - BEFORE;
    params.not_after = now + lifetime;
    params
}

/// What the intermediate may sign for. A kind of name without a subtree here would be free: the extended key usage
/// excludes those, which are of persons.
fn constraints() -> NameConstraints {
    let domains = DOMAINS.map(|domain| GeneralSubtree::DnsName(domain.to_owned()));
    let networks = NETWORKS.iter().filter_map(|(address, prefix)| {
        let address = address.parse().ok()?;
        let network = CidrSubnet::from_addr_prefix(address, *prefix);
        Some(GeneralSubtree::IpAddress(network))
    });
    NameConstraints {
        permitted_subtrees: domains.into_iter().chain(networks).collect(),
        excluded_subtrees: Vec::new(),
    }
}

/// Makes a directory for its owner alone; one that is there stays as it is.
fn private_directory(path: &Path) -> Result<(), LocalFault> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(file_fault(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn names_of_this_machine_and_of_private_networks_are_local_and_no_others() {
        for name in [
            "localhost",
            "LOCALHOST",
            "app.localhost",
            "*.app.test",
            "a.b.internal",
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "fd00::1",
        ] {
            assert!(name.parse::<LocalName>().is_ok(), "{name}");
        }
        for (name, said) in [
            ("example.com", "no local name"),
            ("localhost.example.com", "no local name"),
            ("test.com", "no local name"),
            ("notlocalhost", "no local name"),
            ("test", "all of .test"),
            ("internal", "all of .internal"),
            ("*.test", "all of .test"),
            ("*.localhost", "all of .localhost"),
            ("*", "neither a host name"),
            ("a.*.test", "neither a host name"),
            ("*.*.test", "neither a host name"),
            ("-a.test", "neither a host name"),
            ("a..test", "neither a host name"),
            ("../x.test", "neither a host name"),
            ("a.test.", "neither a host name"),
            ("ä.test", "neither a host name"),
            ("", "neither a host name"),
            ("8.8.8.8", "neither a loopback"),
            ("172.32.0.1", "neither a loopback"),
            ("169.254.1.1", "neither a loopback"),
            ("0.0.0.0", "neither a loopback"),
            ("::ffff:8.8.8.8", "neither a loopback"),
            ("2001:db8::1", "neither a loopback"),
            ("fe80::1", "neither a loopback"),
        ] {
            let refused = name.parse::<LocalName>().unwrap_err();
            assert!(refused.contains(said), "{name}: {refused}");
        }
    }

    const DAY: Duration = Duration::from_hours(24);

    fn names(all: &[&str]) -> Vec<LocalName> {
        all.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_ca_is_made_once_is_private_and_has_no_key_of_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("new/certs");
        let now = clock::now();
        let ca = LocalCa::open(&certs, now).unwrap();
        let written = ca
            .issue("a", &names(&["a.test", "::1"]), DAY, now, false)
            .unwrap();
        assert!(!written.replaced);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for directory in [&certs, &certs.join(DIRECTORY)] {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        let mut files: Vec<PathBuf> = [&certs, &certs.join(DIRECTORY)]
            .iter()
            .flat_map(|directory| fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        let name = |path: &PathBuf| path.strip_prefix(&certs).unwrap().display().to_string();
        assert_eq!(
            files.iter().map(name).collect::<Vec<_>>(),
            [
                "a.key",
                "a.pem",
                "local-ca/intermediate.key",
                "local-ca/intermediate.pem",
                "local-ca/root.pem"
            ]
        );
        assert!(files.iter().all(|path| mode(path) == 0o600));
        let root = fs::read_to_string(LocalCa::root(&certs)).unwrap();
        for key in [&files[0], &files[2]] {
            let key = fs::read(key).unwrap();
            assert!(CertificatePair::from_pem(root.as_bytes(), &key).is_err());
        }

        let again = LocalCa::open(&certs, now).unwrap();
        assert_eq!(fs::read_to_string(LocalCa::root(&certs)).unwrap(), root);
        let old = fs::read(&written.cert).unwrap();
        let renewed = again
            .issue("a", &names(&["a.test"]), DAY, now, false)
            .unwrap();
        assert!(renewed.replaced);
        assert_ne!(fs::read(&renewed.cert).unwrap(), old);
        let pair = CertificatePair::from_pem(
            &fs::read(&renewed.cert).unwrap(),
            &fs::read(&renewed.key).unwrap(),
        );
        assert!(pair.unwrap().warnings(now).is_empty());
    }

    /// What rustls says of a chain to the CA's root, for a name.
    fn verify(certs: &Path, chain: &str, name: &str) -> Result<(), String> {
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_file(LocalCa::root(certs)).unwrap();
        roots.add(root).unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            rustls::crypto::aws_lc_rs::default_provider().into(),
        );
        let verifier = verifier.build().unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (own, others) = chain.split_first().unwrap();
        let verified = verifier.verify_server_cert(own, others, &name, &[], UnixTime::now());
        verified.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn clients_accept_it_for_its_names_and_nothing_else_that_its_ca_signs() {
        let folder = tempfile::tempdir().unwrap();
        let (certs, now) = (folder.path(), clock::now());
        let ca = LocalCa::open(certs, now).unwrap();
        let all = [
            "localhost",
            "*.app.test",
            "a.internal",
            "127.0.0.1",
            "::1",
            "10.1.2.3",
        ];
        let written = ca.issue("a", &names(&all), DAY, now, false).unwrap();
        let chain = fs::read_to_string(written.cert).unwrap();
        for name in all {
            let name = name.replace('*', "x");
            assert_eq!(verify(certs, &chain, &name), Ok(()), "{name}");
        }
        assert!(verify(certs, &chain, "other.test").is_err());

        for name in [
            "example.com",
            "localhost.example.com",
            "8.8.8.8",
            "2001:db8::1",
        ] {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let stolen = params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer);
            let chain = stolen.unwrap().pem() + &ca.intermediate;
            let refused = verify(certs, &chain, name).unwrap_err();
            assert!(
                refused.contains("NameConstraintViolation"),
                "{name}: {refused}"
            );
        }
    }

    #[test]
    fn files_of_others_are_overwritten_by_force_alone() {
        let folder = tempfile::tempdir().unwrap();
        let now = clock::now();
        let ca = LocalCa::open(folder.path(), now).unwrap();
        let other = tempfile::tempdir().unwrap();
        let other = LocalCa::open(other.path(), now).unwrap();
        let all = names(&["a.test"]);
        let issued = other.issue("a", &all, DAY, now, false).unwrap();
        for (name, bytes) in [
            ("a.pem", b"mine".to_vec()),
            ("a.key", b"mine".to_vec()),
            ("a.pem", fs::read(issued.cert).unwrap()),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, &bytes).unwrap();
            let refused = ca.issue("a", &all, DAY, now, false).unwrap_err();
            assert!(refused.to_string().contains("--force"), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert!(ca.issue("a", &all, DAY, now, true).unwrap().replaced);
            for name in ["a.pem", "a.key"] {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
        }
    }

    #[test]
    fn a_ca_that_is_not_whole_or_has_expired_is_named_with_the_remedy() {
        let now = clock::now();
        let open = |folder: &tempfile::TempDir, now| {
            let refused = LocalCa::open(folder.path(), now).err().unwrap().to_string();
            assert!(refused.contains("remove the directory"), "{refused}");
            refused
        };
        for name in ["root.pem", "intermediate.pem", "intermediate.key"] {
            let folder = tempfile::tempdir().unwrap();
            LocalCa::open(folder.path(), now).unwrap();
            fs::remove_file(folder.path().join(DIRECTORY).join(name)).unwrap();
            assert!(open(&folder, now).contains(name));
        }
        let folder = tempfile::tempdir().unwrap();
        LocalCa::open(folder.path(), now).unwrap();
        assert!(open(&folder, now + CA_LIFETIME).contains("expire"));
        let key = KeyPair::generate().unwrap().serialize_pem();
        fs::write(folder.path().join("local-ca/intermediate.key"), key).unwrap();
        assert!(open(&folder, now).contains("does not belong"));
    }
}
