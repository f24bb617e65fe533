//! Certificates, keys and trusted roots as they lie in files, and what is wrong with them.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use ::aws_lc_rs::hmac;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore, SupportedProtocolVersion};

use super::self_signed;

/// A file of certificates is a few kilobytes, one with all roots of the world a quarter of a megabyte.
const MAX_FILE: u64 = 4 << 20;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertSpec {
    /// In PEM files.
    Files {
        /// The certificate, and behind it those that lead to a root.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Made by ourselves, and kept in this directory.
    SelfSigned {
        /// The directory.
        directory: PathBuf,
    },
    /// Made by ourselves when it is first needed, and the same for ever: what others know us by.
    Identity {
        /// The file of both, the certificate and its key.
        file: PathBuf,
    },
}

impl CertSpec {
    /// The file of the certificate.
    pub(super) fn file(&self) -> PathBuf {
        match self {
            CertSpec::Files { cert, .. } => cert.clone(),
            CertSpec::SelfSigned { directory } => self_signed::paths(directory)[0].clone(),
            CertSpec::Identity { file } => file.clone(),
        }
    }
}

/// The setting that a [`Fault`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The certificate with this index.
    Cert(usize),
    /// The key with this index.
    Key(usize),
    /// Those whom the other side's certificate has to come from.
    Ca,
    /// The name that the other side has to prove.
    ServerName,
}

/// Something wrong with the files of a setting. Does not quote what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which setting.
    pub field: Field,
    /// What is wrong, with the file's name.
    pub message: String,
    /// Whether it can be used nonetheless.
    pub is_warning: bool,
}

impl Fault {
    pub(super) fn new(field: Field, message: impl fmt::Display) -> Fault {
        Fault { field, message: message.to_string(), is_warning: false }
    }

    pub(super) fn warning(field: Field, message: impl fmt::Display) -> Fault {
        Fault { is_warning: true, ..Fault::new(field, message) }
    }
}

/// What tells one state of a set of files from another without reading them; of each that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<Option<FileStamp>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Stamp {
        let one = |meta: Metadata| FileStamp {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.size(),
        };
        Stamp(files.into_iter().map(|file| std::fs::metadata(file).ok().map(one)).collect())
    }
}

/// What does the mathematics.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// The same, and offers first what this machine encrypts with the least work: AES-128 takes 10 rounds where AES-256 takes 14,
/// and without instructions for AES, as on small machines, ChaCha20 takes a third of either. For those who ask no more of a
/// cipher than that nobody breaks it.
pub(super) fn swift_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        let first = match has_aes() {
            true => CipherSuite::TLS13_AES_128_GCM_SHA256,
            false => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        // Stable: the others keep their order.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// The same with an exchange of keys that takes half the work: measured for a resumed handshake, 110 us a side in place of 200.
/// What it lacks, safety from those who keep what they see until there are machines that can undo it, the secret of a session
/// before has to add.
pub(super) fn light_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = CryptoProvider::clone(&swift_provider());
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// Whether this machine has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The versions of the protocol that are spoken.
pub(super) fn versions(tls13_only: bool) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if tls13_only { &BOTH[..1] } else { &BOTH }
}

/// A secret that follows from a private key, and stays as long as that does.
#[derive(Clone, Copy)]
pub(super) struct DerivedKey([u8; 32]);

impl DerivedKey {
    fn of(private: &PrivateKeyDer<'_>) -> DerivedKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, private.secret_der());
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, b"wmproxy derived key").as_ref());
        DerivedKey(derived)
    }

    /// The secret for this purpose.
    pub(super) fn expand(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut expanded = [0; 32];
        expanded.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        expanded
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey")
    }
}

/// Loads certificate number `index`. Beside it what is odd about it.
pub(super) fn load_pair(spec: &CertSpec, index: usize) -> Result<(CertifiedKey, Vec<Fault>), Fault> {
    load_keyed(spec, index).map(|(pair, _, odd)| (pair, odd))
}

/// The same, with what only who has the private key can come to, and what is always the same for that.
pub(super) fn load_keyed(
    spec: &CertSpec,
    index: usize,
) -> Result<(CertifiedKey, DerivedKey, Vec<Fault>), Fault> {
    let (cert, key) = match spec {
        CertSpec::Files { cert, key } => (cert.clone(), key.clone()),
        CertSpec::SelfSigned { directory } => {
            self_signed::ensure(directory).map_err(|message| Fault::new(Field::Cert(index), message))?
        }
        CertSpec::Identity { file } => (file.clone(), file.clone()),
    };
    let chain = certificates(&cert).map_err(|message| Fault::new(Field::Cert(index), message))?;
    let (private, warning) = private_key(&key).map_err(|message| Fault::new(Field::Key(index), message))?;
    let derived = DerivedKey::of(&private);
    let provider = provider();
    let signing = provider.key_provider.load_private_key(private).map_err(|_| {
        Fault::new(Field::Key(index), format!("{}: a key of a kind that is not supported", key.display()))
    })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        // Of a kind that does not tell: then a handshake would.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message = format!("{} is not the key of {}", key.display(), cert.display());
            return Err(Fault::new(Field::Key(index), message));
        }
        Err(error) => return Err(Fault::new(Field::Cert(index), format!("{}: {error}", cert.display()))),
    }
    let odd = warning.map(|message| Fault::warning(Field::Key(index), message)).into_iter().collect();
    Ok((pair, derived, odd))
}

/// The roots in a file.
pub(super) fn load_roots(file: &Path) -> Result<Arc<RootCertStore>, Fault> {
    let fault = |message: String| Fault::new(Field::Ca, message);
    let mut roots = RootCertStore::empty();
    for root in certificates(file).map_err(fault)? {
        roots.add(root).map_err(|error| fault(format!("{}: {error}", file.display())))?;
    }
    Ok(Arc::new(roots))
}

/// The roots that this system trusts, as its administrator has them: kept up to date by its distribution, and with the
/// administrator's own. A list built into this program would be neither.
pub(super) fn system_roots() -> Result<Arc<RootCertStore>, Fault> {
    let known = SYSTEM_ROOTS.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    if let Some(roots) = known {
        return Ok(roots);
    }
    let roots = read_system_roots()?;
    use_system_roots(&roots);
    Ok(roots)
}

/// Has these be the system's for everybody who asks from now on.
pub(super) fn use_system_roots(roots: &Arc<RootCertStore>) {
    *SYSTEM_ROOTS.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(roots);
}

/// Those that are in use: over a hundred certificates, which all upstreams share.
static SYSTEM_ROOTS: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());

/// The system's roots as they are now; those in use if they are still the same.
pub(super) fn read_system_roots() -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        let message = format!(
            "this system trusts nobody{why}: install ca-certificates, or say in `ca` whom to trust for this upstream"
        );
        return Err(Fault::new(Field::Ca, message));
    }
    let known = SYSTEM_ROOTS.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    Ok(known.filter(|known| known.roots == roots.roots).unwrap_or_else(|| Arc::new(roots)))
}

/// All certificates of a PEM file, of which there is at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (text, _) = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| misread(file, &error))?;
    if chain.is_empty() {
        return Err(format!("no certificate in {} (expected PEM: BEGIN CERTIFICATE)", file.display()));
    }
    Ok(chain)
}

/// The first key of a PEM file, and what is odd about the file.
fn private_key(file: &Path) -> Result<(PrivateKeyDer<'static>, Option<String>), String> {
    let (text, meta) = read(file)?;
    let has = |word: &str| text.windows(word.len()).any(|part| part == word.as_bytes());
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        let name = file.display();
        return Err(format!("{name} is encrypted: write it in the clear with `openssl pkey -in {name}`"));
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!("no private key in {} (expected PEM: BEGIN PRIVATE KEY)", file.display())
        }
        error => misread(file, &error),
    })?;
    let open = meta.mode() & 0o004 != 0;
    Ok((key, open.then(|| format!("everybody on this machine may read {}; say chmod 600", file.display()))))
}

/// What is wrong with the form of a PEM file. In the library's words lines would be lists of numbers.
fn misread(file: &Path, error: &pem::Error) -> String {
    let name = file.display();
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            format!("{name} is cut off: its last section has no END line")
        }
        pem::Error::IllegalSectionStart { .. } => format!("{name} is no PEM file: a BEGIN line is broken"),
        error => format!("{name} is no PEM file: {error}"),
    }
}

fn read(file: &Path) -> Result<(Vec<u8>, Metadata), String> {
    let attempt = || {
        // Asked before it is opened: opening a pipe waits for who writes it.
        if !std::fs::metadata(file)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let opened = File::open(file)?;
        let meta = opened.metadata()?;
        if meta.size() > MAX_FILE {
            return Err(io::Error::other("too large for what it should be"));
        }
        let mut text = Vec::new();
        opened.take(MAX_FILE).read_to_end(&mut text)?;
        Ok((text, meta))
    };
    attempt().map_err(|error| format!("can't read {}: {error}", file.display()))
}
