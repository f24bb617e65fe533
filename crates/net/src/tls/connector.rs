//! The client's side of TLS: what an upstream group needs to make handshakes.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NoKeyLog, RootCertStore};

use super::HEADER;
use super::TlsInfo;
use super::exporter::Exporters;
use super::files::{self, CertSpec, Fault, Field, Stamp};
use super::renewal::Fresh;
use super::session::SENT;
use super::tickets::Tickets;
use super::verifier::Alone;
use super::watch::Watched;
use super::{TlsError, connect, connect_again};
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
    /// Whether peers have to speak TLS 1.3. Only such sessions export keying material, and what is offered first is what this
    /// machine encrypts with the least work.
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
    /// Where both ends speak TLS 1.3 only: what sessions are resumed with, and for that alone.
    light: Option<Light>,
    /// The same for QUIC, made when it is first wanted.
    quic: OnceLock<Arc<ClientConfig>>,
    /// Whom the system trusts, where that counts.
    system: Option<Arc<RootCertStore>>,
}

/// What resumes sessions with less work.
#[derive(Debug)]
struct Light {
    /// With an exchange of keys that is not made to last.
    config: Arc<ClientConfig>,
    /// Of both configurations' sessions.
    tickets: Arc<Tickets>,
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
        self.told(peer, host, connect(stream, self, name).await)
    }

    /// The same by [`connect_again`](super::connect_again): for a further connection to a peer that is known by another.
    ///
    /// # Errors
    /// As `connect_again`.
    pub async fn secure_again(&self, stream: &Stream, peer: &str, host: &str) -> io::Result<TlsInfo> {
        let name = self.name_for(host).map_err(io::Error::other)?;
        self.told(peer, host, connect_again(stream, self, name).await)
    }

    /// Tells the log of a peer that proves to be somebody else.
    fn told(&self, peer: &str, host: &str, connected: Result<TlsInfo, TlsError>) -> io::Result<TlsInfo> {
        let mut unbelieved = self.unbelieved.lock().unwrap_or_else(PoisonError::into_inner);
        match &connected {
            Ok(_) => drop(unbelieved.remove(peer)),
            Err(error) if error.is_untrusted() => {
                let host = self.spec.server_name.as_deref().unwrap_or(host);
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

    /// Begins a handshake.
    pub(super) fn begin(
        &self,
        name: ServerName<'static>,
    ) -> Result<UnbufferedClientConnection, rustls::Error> {
        let loaded = self.loaded.load();
        let config = loaded.config.clone();
        match &loaded.light {
            Some(light) => {
                light.tickets.choose(&name.clone(), |_| UnbufferedClientConnection::new(config, name))
            }
            None => UnbufferedClientConnection::new(config, name),
        }
    }

    /// Begins one that resumes a session with less work if there is one, which is said, too.
    pub(super) fn begin_again(
        &self,
        name: ServerName<'static>,
    ) -> Result<(UnbufferedClientConnection, bool), rustls::Error> {
        let loaded = self.loaded.load();
        let Some(light) = &loaded.light else { return Ok((self.begin(name)?, false)) };
        light.tickets.choose(&name.clone(), |has_one| {
            let config = if has_one { &light.config } else { &loaded.config };
            Ok((UnbufferedClientConnection::new(config.clone(), name)?, has_one))
        })
    }

    /// Has no session with a server be resumed.
    pub(super) fn forget(&self, name: &ServerName<'static>) {
        if let Some(light) = &self.loaded.load().light {
            light.tickets.forget(name);
        }
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

    #[cfg(test)]
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
        let (config, light, odd) = client_config(spec, system.clone())?;
        Ok((Loaded { config: Arc::new(config), light, quic: OnceLock::new(), system }, odd))
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

/// What peers are judged by.
fn verifier(
    spec: &ConnectorSpec,
    system: Option<Arc<RootCertStore>>,
) -> Result<Arc<dyn ServerCertVerifier>, Fault> {
    let provider = files::provider();
    if !spec.fingerprints.is_empty() {
        return Ok(Arc::new(Alone::pinned(provider, &spec.fingerprints)));
    }
    if spec.insecure_skip_verify {
        return Ok(Arc::new(Alone::anybody(provider)));
    }
    let roots = match (&spec.ca, system) {
        (Some(file), _) => files::load_roots(file)?,
        (None, Some(system)) => system,
        (None, None) => files::system_roots()?,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    Ok(verifier.map_err(|error| Fault::new(Field::Ca, error))?)
}

/// The configuration, with what is odd about the files that it is made of. Another trust is another configuration, which resumes
/// no session of this one: tickets lie with it.
fn client_config(
    spec: &ConnectorSpec,
    system: Option<Arc<RootCertStore>>,
) -> Result<(ClientConfig, Option<Light>, Vec<Fault>), Fault> {
    let verifier = verifier(spec, system)?;
    let mut odd = vec![];
    let mut proof: Option<Arc<dyn ResolvesClientCert>> = None;
    if let Some(cert) = &spec.cert {
        let (pair, found) = files::load_pair(cert, 0)?;
        proof = Some(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
        odd = found;
    }
    let make = |provider: Arc<CryptoProvider>, proof: Option<Arc<dyn ResolvesClientCert>>| {
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(files::versions(spec.tls13_only))
            .map_err(|error| Fault::new(Field::Ca, error))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier.clone());
        let mut config = match proof {
            None => builder.with_no_client_auth(),
            Some(proof) => builder.with_client_cert_resolver(proof),
        };
        config.max_fragment_size = Some(SENT + HEADER);
        config.alpn_protocols = spec.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
        Ok(config)
    };
    if !spec.tls13_only {
        return Ok((make(files::provider(), proof)?, None, odd));
    }
    let tickets = Arc::new(Tickets::default());
    let own = |mut config: ClientConfig| {
        config.key_log = Arc::new(Exporters);
        config.resumption = Resumption::store(tickets.clone());
        config
    };
    let config = own(make(files::swift_provider(), proof)?);
    // A session is resumed by who trusts the same, and would prove the same.
    let light = own(make(files::light_provider(), Some(config.client_auth_cert_resolver.clone()))?);
    Ok((config, Some(Light { config: Arc::new(light), tickets: tickets.clone() }), odd))
}
