//! The server's side of TLS: what a listener needs to take handshakes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{NoKeyLog, ServerConfig};

use super::HEADER;
use super::certificate::{CertificateInfo, Fingerprint};
use super::exporter::Exporters;
use super::files::{self, CertSpec, DerivedKey, Fault, Field, Stamp};
use super::identity;
use super::renewal::Fresh;
use super::resolver::Resolver;
use super::self_signed;
use super::session::SENT;
use super::watch::Watched;

/// Sessions of TLS 1.2 clients without tickets that are remembered, a few hundred bytes each. Such clients are few.
const SESSIONS: usize = 1024;

/// What a listener's TLS is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AcceptorSpec {
    /// The certificates, of which the client gets one by the name it asks for, or else the first. At least one.
    pub certs: Vec<CertSpec>,
    /// Clients need a certificate that comes from one of these.
    pub client_ca: Option<PathBuf>,
    /// Whether clients may come without a certificate, for there is another way to prove who they are. One that they show is
    /// verified all the same, and what it came to is in [`TlsInfo::client`](super::TlsInfo::client): without it nobody has
    /// proven anything.
    pub client_optional: bool,
    /// The protocols that clients may choose from, the preferred first; none to leave that out.
    pub alpn: Vec<String>,
    /// Whether clients that ask for no name of any certificate are refused.
    pub strict_sni: bool,
    /// Whether clients have to speak TLS 1.3. Only such sessions export keying material.
    pub tls13_only: bool,
}

/// Takes TLS handshakes as a listener's options say, on every worker. Follows its files when they change.
#[derive(Debug)]
pub struct Acceptor {
    spec: AcceptorSpec,
    loaded: ArcSwap<Loaded>,
    /// What the files were when they were last loaded, or tried to be.
    watched: Mutex<Watched>,
}

/// What the files came to.
#[derive(Debug)]
pub(super) struct Loaded {
    config: Arc<ServerConfig>,
    /// The same for QUIC, made when it is first wanted.
    quic: OnceLock<Arc<ServerConfig>>,
    resolver: Arc<Resolver>,
    certificates: Vec<CertificateInfo>,
    /// The first certificate's.
    fingerprint: Option<Fingerprint>,
    /// Of the first certificate's private key.
    derived: Option<DerivedKey>,
    sessions: Sessions,
}

/// What lets a client come back without a whole handshake.
#[derive(Debug, Clone)]
struct Sessions {
    tickets: Arc<dyn ProducesTickets>,
    cache: Arc<dyn StoresServerSessions>,
    /// Whom they were given to: a ticket must not outlive the trust that it came from.
    client_ca: Option<Vec<u8>>,
}

impl Acceptor {
    /// Loads the files that `spec` names. Beside it what is odd about them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(spec: AcceptorSpec) -> Result<(Acceptor, Vec<Fault>), Fault> {
        for (index, cert) in spec.certs.iter().enumerate() {
            // Only here, so that one that is gone later is missed and not made anew.
            if let CertSpec::Identity { file } = cert {
                identity::ensure(file).map_err(|message| Fault::new(Field::Cert(index), message))?;
            }
        }
        let watched = Watched::new(stamp(&spec));
        let (loaded, odd) = Loaded::load(&spec, None)?;
        Ok((Acceptor { spec, loaded: ArcSwap::from_pointee(loaded), watched: Mutex::new(watched) }, odd))
    }

    /// Looks whether [`Acceptor::load`] would do, and writes nothing.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(spec: &AcceptorSpec) -> Result<Vec<Fault>, Fault> {
        let is_there = |cert: &CertSpec| match cert {
            CertSpec::Files { .. } => true,
            CertSpec::SelfSigned { .. } => false,
            CertSpec::Identity { file } => file.exists(),
        };
        let (.., odd) = load_pairs(&spec.certs, is_there)?;
        spec.client_ca.as_deref().map(files::load_roots).transpose()?;
        Ok(odd)
    }

    /// What it was made of.
    pub fn spec(&self) -> &AcceptorSpec {
        &self.spec
    }

    /// The certificates in use, in the order of the config.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.loaded.load().certificates.clone()
    }

    /// Whether one of the certificates is for `name`, which is in lower case; with `*.` in front, for any name one label
    /// below.
    pub fn covers(&self, name: &str) -> bool {
        self.loaded.load().resolver.covers(name)
    }

    /// The fingerprint of the first certificate, which is what clients that ask for no name get.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.loaded.load().fingerprint.map(|found| found.0)
    }

    /// A secret of who has the first certificate's private key, for this purpose; the same as long as the key is, for this
    /// process and the next.
    pub fn derive(&self, purpose: &[u8]) -> Option<[u8; 32]> {
        self.loaded.load().derived.map(|key| key.expand(purpose))
    }

    /// What QUIC makes its handshakes with, as the files are now: to be asked for again once they have changed.
    pub fn quic_config(&self) -> Arc<ServerConfig> {
        let loaded = self.loaded.load();
        let make = || {
            let mut config = ServerConfig::clone(&loaded.config);
            // QUIC exports by itself.
            config.key_log = Arc::new(NoKeyLog);
            Arc::new(config)
        };
        loaded.quic.get_or_init(make).clone()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.loaded.load().config.clone()
    }

    /// Whether it has no certificate for clients that ask for `name`.
    pub(super) fn refuses(&self, name: Option<&str>) -> bool {
        self.loaded.load().resolver.refuses(name)
    }

    /// Loads the files anew if they have changed and change no more. Reads files, so it is nothing for a worker.
    ///
    /// # Errors
    /// What is wrong with them now: what was loaded before stays in use.
    pub fn follow(&self) -> Result<bool, Fault> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.follow(stamp(&self.spec), || {
            self.loaded.store(Arc::new(self.load_again()?));
            Ok(true)
        })
    }

    /// Loads the files anew if they have changed, were it this moment, to be used once they are [applied](Self::apply).
    ///
    /// # Errors
    /// As [`Acceptor::follow`].
    pub(super) fn renew(&self) -> Result<Option<Fresh<Loaded>>, Fault> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.renew(stamp(&self.spec), false, || self.load_again())
    }

    /// Goes on with what was loaded, unless that was overtaken.
    pub(super) fn apply(&self, fresh: Fresh<Loaded>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_behind(&fresh) {
            return;
        }
        self.loaded.store(Arc::new(fresh.loaded));
        watched.have_tried(fresh.stamp, None);
    }

    fn load_again(&self) -> Result<Loaded, Fault> {
        let sessions = self.loaded.load().sessions.clone();
        Ok(Loaded::load(&self.spec, Some(sessions))?.0)
    }
}

fn stamp(spec: &AcceptorSpec) -> Stamp {
    let certs = spec.certs.iter().flat_map(|cert| match cert {
        CertSpec::Files { cert, key } => [cert.clone(), key.clone()],
        CertSpec::SelfSigned { directory } => self_signed::paths(directory),
        CertSpec::Identity { file } => [file.clone(), file.clone()],
    });
    let files: Vec<PathBuf> = certs.chain(spec.client_ca.clone()).collect();
    Stamp::of(files.iter().map(PathBuf::as_path))
}

impl Loaded {
    fn load(spec: &AcceptorSpec, sessions: Option<Sessions>) -> Result<(Loaded, Vec<Fault>), Fault> {
        let (pairs, derived, odd) = load_pairs(&spec.certs, |_| true)?;
        let certificates = pairs.iter().map(|(_, info)| info.clone()).collect();
        let fingerprint = pairs.first().and_then(|(pair, _)| pair.cert.first()).map(Fingerprint::of);
        let resolver = Arc::new(Resolver::new(pairs, spec.strict_sni));
        let sessions = Sessions::new(spec.client_ca.as_deref(), sessions)?;
        let config = Arc::new(server_config(spec, resolver.clone(), &sessions)?);
        let quic = OnceLock::new();
        Ok((Loaded { config, quic, resolver, certificates, fingerprint, derived, sessions }, odd))
    }
}

/// The certificates of a list that are `wanted`, what follows from the first one's private key, and what is odd about them.
#[expect(clippy::type_complexity, reason = "what two callers take apart at once")]
fn load_pairs(
    certs: &[CertSpec],
    wanted: impl Fn(&CertSpec) -> bool,
) -> Result<(Vec<(Arc<CertifiedKey>, CertificateInfo)>, Option<DerivedKey>, Vec<Fault>), Fault> {
    let mut derived = None;
    let mut odd = Vec::new();
    let mut pairs = Vec::new();
    for (index, cert) in certs.iter().enumerate().filter(|(_, cert)| wanted(cert)) {
        let (pair, key, found) = files::load_keyed(cert, index)?;
        derived.get_or_insert(key);
        let fault = |message| Fault::new(Field::Cert(index), message);
        let leaf = pair.end_entity_cert().map_err(|error| fault(error.to_string()))?;
        let info = CertificateInfo::read(leaf).map_err(fault)?;
        if info.not_after < SystemTime::now() {
            odd.push(Fault::warning(Field::Cert(index), "this certificate has expired"));
        }
        odd.extend(found);
        pairs.push((Arc::new(pair), info));
    }
    Ok((pairs, derived, odd))
}

impl Sessions {
    /// Goes on with those of before unless other clients are trusted now.
    fn new(client_ca: Option<&Path>, before: Option<Sessions>) -> Result<Sessions, Fault> {
        let client_ca =
            client_ca.map(std::fs::read).transpose().map_err(|error| Fault::new(Field::Ca, error))?;
        if let Some(before) = before.filter(|before| before.client_ca == client_ca) {
            return Ok(before);
        }
        let tickets = Ticketer::new().map_err(|error| Fault::new(Field::Cert(0), error))?;
        Ok(Sessions { tickets, cache: ServerSessionMemoryCache::new(SESSIONS), client_ca })
    }
}

fn server_config(
    spec: &AcceptorSpec,
    resolver: Arc<Resolver>,
    sessions: &Sessions,
) -> Result<ServerConfig, Fault> {
    let provider = files::provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(files::versions(spec.tls13_only))
        .map_err(|error| Fault::new(Field::Cert(0), error))?;
    let builder = match &spec.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = files::load_roots(file)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if spec.client_optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| Fault::new(Field::Ca, error))?)
        }
    };
    let mut config = builder.with_cert_resolver(resolver);
    if spec.tls13_only {
        config.key_log = Arc::new(Exporters);
    }
    config.max_fragment_size = Some(SENT + HEADER);
    config.alpn_protocols = spec.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    config.ticketer = sessions.tickets.clone();
    config.session_storage = sessions.cache.clone();
    Ok(config)
}
