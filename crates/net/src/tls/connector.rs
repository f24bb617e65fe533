//! The client's side of TLS: what an upstream group needs to make handshakes.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NoKeyLog, RootCertStore};

use super::HEADER;
use super::TlsInfo;
use super::exporter::Exporters;
use super::files::{self, CertSpec, Fault, Field, Stamp};
use super::renewal::Fresh;
use super::session::SENT;
use super::verifier::Alone;
use super::watch::Watched;
use crate::stream::Stream;

/// Peers whose reasons are remembered. Groups of changing addresses must not make it grow for ever.
const UNBELIEVED: usize = 1024;

/// What an upstream's TLS is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ConnectorSpec {
    /// The name that peers have to prove, if it is not that of the server.
    pub server_name: Option<String>,
    /// Whom their certificates have to come from; by default those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// What to prove to them, where they ask.
    pub cert: Option<CertSpec>,
    /// The protocols to offer, the preferred first.
    pub alpn: Vec<String>,
    /// Whether anybody is believed.
    pub insecure_skip_verify: bool,
    /// The SHA-256 fingerprints of the certificates that peers may have. With any of them a certificate is judged by nothing
    /// else: not by whom it comes from, nor by its names and dates.
    pub fingerprints: Vec<[u8; 32]>,
    /// Whether peers have to speak TLS 1.3. Only such sessions export keying material.
    pub tls13_only: bool,
}

/// Makes TLS handshakes as an upstream's options say, on every worker. Follows its files when they change.
#[derive(Debug)]
pub struct Connector {
    spec: ConnectorSpec,
    name: Option<ServerName<'static>>,
    loaded: ArcSwap<Loaded>,
    watched: Mutex<Watched>,
    /// Peers that were not believed of late, each with the reason that was logged.
    unbelieved: Mutex<HashMap<String, String>>,
}

/// What the files came to.
#[derive(Debug)]
pub(super) struct Loaded {
    config: Arc<ClientConfig>,
    /// The same for QUIC, made when it is first wanted.
    quic: OnceLock<Arc<ClientConfig>>,
    /// Whom the system trusts, where that counts.
    system: Option<Arc<RootCertStore>>,
}

impl ConnectorSpec {
    /// Whether it goes by whom the system trusts.
    pub(super) fn trusts_system(&self) -> bool {
        self.ca.is_none() && !self.insecure_skip_verify && self.fingerprints.is_empty()
    }
}

impl Connector {
    /// Loads the files that `spec` names. Beside it what is odd about them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(spec: ConnectorSpec) -> Result<(Connector, Vec<Fault>), Fault> {
        let system = spec.trusts_system().then(files::system_roots).transpose()?;
        Connector::load_with(spec, system)
    }

    /// The same with whom the system trusts, where that counts.
    pub(super) fn load_with(
        spec: ConnectorSpec,
        system: Option<Arc<RootCertStore>>,
    ) -> Result<(Connector, Vec<Fault>), Fault> {
        let name = spec.server_name.as_deref().map(parse_name).transpose()?;
        let watched = Watched::new(stamp(&spec));
        let (loaded, odd) = Loaded::load(&spec, system)?;
        let connector = Connector {
            spec,
            name,
            loaded: ArcSwap::from_pointee(loaded),
            watched: Mutex::new(watched),
            unbelieved: Mutex::default(),
        };
        Ok((connector, odd))
    }

    /// What it was made of.
    pub fn spec(&self) -> &ConnectorSpec {
        &self.spec
    }

    /// The name that a peer has to prove which is reached under `host`, a name or an IP address.
    ///
    /// # Errors
    /// That is no name, and none is set.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, Fault> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => parse_name(host),
        }
    }

    /// Does a handshake with a peer, and sees that it is `host`. One that proves to be somebody else is in the log, once
    /// for each reason until it is believed again.
    ///
    /// # Errors
    /// As [`connect`](super::connect).
    pub async fn secure(&self, stream: &Stream, peer: &str, host: &str) -> io::Result<TlsInfo> {
        let name = self.name_for(host).map_err(io::Error::other)?;
        let connected = super::connect(stream, self, name).await;
        let mut unbelieved = self.unbelieved.lock().unwrap_or_else(PoisonError::into_inner);
        match &connected {
            Ok(_) => drop(unbelieved.remove(peer)),
            Err(error) if error.is_untrusted() => {
                let reason = error.to_string();
                if unbelieved.len() >= UNBELIEVED {
                    unbelieved.clear();
                }
                if unbelieved.get(peer) != Some(&reason) {
                    tracing::warn!(peer, host, "the peer's certificate is not accepted: {reason}");
                    unbelieved.insert(peer.to_owned(), reason);
                }
            }
            Err(_) => {}
        }
        Ok(connected?)
    }

    /// What QUIC makes its handshakes with, as the files are now. It is the same until they change, and with it the sessions
    /// that it may resume.
    pub fn quic_config(&self) -> Arc<ClientConfig> {
        let loaded = self.loaded.load();
        let make = || {
            let mut config = ClientConfig::clone(&loaded.config);
            // QUIC exports by itself.
            config.key_log = Arc::new(NoKeyLog);
            // A ticket that came over TCP says nothing of what QUIC has to know besides.
            config.resumption = Resumption::default();
            Arc::new(config)
        };
        loaded.quic.get_or_init(make).clone()
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.loaded.load().config.clone()
    }

    /// Loads the files anew if they have changed and change no more. Reads files, so it is nothing for a worker.
    ///
    /// # Errors
    /// What is wrong with them now: what was loaded before stays in use.
    pub fn follow(&self) -> Result<bool, Fault> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.follow(stamp(&self.spec), || {
            let system = self.loaded.load().system.clone();
            self.loaded.store(Arc::new(Loaded::load(&self.spec, system)?.0));
            Ok(true)
        })
    }

    /// Loads the files anew if they have changed, were it this moment, or if the `system` trusts others now; to be used
    /// once they are [applied](Self::apply).
    ///
    /// # Errors
    /// As [`Connector::follow`].
    pub(super) fn renew(&self, system: Option<Arc<RootCertStore>>) -> Result<Option<Fresh<Loaded>>, Fault> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let others = match (&self.loaded.load().system, &system) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
            _ => false,
        };
        watched.renew(stamp(&self.spec), others, || Ok(Loaded::load(&self.spec, system)?.0))
    }

    /// Goes on with what was loaded. Where its files were overtaken, the newer ones are used with whom the system trusts now.
    pub(super) fn apply(&self, mut fresh: Fresh<Loaded>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_behind(&fresh) {
            fresh.stamp = stamp(&self.spec);
            // Files that can't be loaded are told of by who follows them.
            let Ok((loaded, _)) = Loaded::load(&self.spec, fresh.loaded.system.take()) else { return };
            fresh.loaded = loaded;
        }
        self.loaded.store(Arc::new(fresh.loaded));
        watched.have_tried(fresh.stamp, None);
    }
}

impl Loaded {
    fn load(spec: &ConnectorSpec, system: Option<Arc<RootCertStore>>) -> Result<(Loaded, Vec<Fault>), Fault> {
        let (config, odd) = client_config(spec, system.clone())?;
        Ok((Loaded { config: Arc::new(config), quic: OnceLock::new(), system }, odd))
    }
}

fn parse_name(text: &str) -> Result<ServerName<'static>, Fault> {
    let hint = "a certificate is for a host name or an IP address";
    ServerName::try_from(text.to_owned())
        .map_err(|_| Fault::new(Field::ServerName, format!("`{text}` is no name to verify: {hint}")))
}

fn stamp(spec: &ConnectorSpec) -> Stamp {
    let mut files: Vec<&std::path::Path> = spec.ca.iter().map(PathBuf::as_path).collect();
    if let Some(CertSpec::Files { cert, key }) = &spec.cert {
        files.extend([cert.as_path(), key.as_path()]);
    }
    Stamp::of(files)
}

fn client_config(
    spec: &ConnectorSpec,
    system: Option<Arc<RootCertStore>>,
) -> Result<(ClientConfig, Vec<Fault>), Fault> {
    let provider = files::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(files::versions(spec.tls13_only))
        .map_err(|error| Fault::new(Field::Ca, error))?;
    // Another trust is another configuration, which resumes no session of this one: tickets lie with it.
    let verifier: Arc<dyn ServerCertVerifier> = if !spec.fingerprints.is_empty() {
        Arc::new(Alone::pinned(provider.clone(), &spec.fingerprints))
    } else if spec.insecure_skip_verify {
        Arc::new(Alone::anybody(provider.clone()))
    } else {
        let roots = match (&spec.ca, system) {
            (Some(file), _) => files::load_roots(file)?,
            (None, Some(system)) => system,
            (None, None) => files::system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
        verifier.map_err(|error| Fault::new(Field::Ca, error))?
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let (mut config, odd) = match &spec.cert {
        None => (builder.with_no_client_auth(), vec![]),
        Some(cert) => {
            let (pair, odd) = files::load_pair(cert, 0)?;
            let resolver = rustls::sign::SingleCertAndKey::from(pair);
            (builder.with_client_cert_resolver(Arc::new(resolver)), odd)
        }
    };
    if spec.tls13_only {
        config.key_log = Arc::new(Exporters);
    }
    config.max_fragment_size = Some(SENT + HEADER);
    config.alpn_protocols = spec.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    Ok((config, odd))
}
