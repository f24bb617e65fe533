//! What the commands that serve HTTP have in common.

use clap::Args;
use wmproxy_net::addr::{ListenSpec, Protocol};
use wmproxy_net::tls::{CertOptions, ListenerTls};

/// Where the certificate of a server comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArgs {
    /// Serve https with a certificate made for development
    #[arg(long, conflicts_with_all = ["cert", "key"])]
    self_signed: bool,
    /// Serve https with the certificate in this PEM file
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<String>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
}

impl TlsArgs {
    /// The same as an option; none if it serves plain http.
    pub(crate) fn options(&self) -> Option<ListenerTls> {
        let Some(cert) = &self.cert else { return self.self_signed.then_some(ListenerTls::SelfSigned) };
        let options = CertOptions { cert: cert.clone(), key: self.key.clone(), ..CertOptions::default() };
        Some(ListenerTls::One(Box::new(options)))
    }

    /// Whether nobody has reason to trust the certificate.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.self_signed
    }
}

/// An address to listen on.
///
/// # Errors
/// It is none, or one of UDP.
pub(crate) fn listen(text: &str) -> Result<ListenSpec, String> {
    let listen: ListenSpec = text.parse().map_err(|error| format!("{error}"))?;
    match listen.protocol {
        Protocol::Tcp => Ok(listen),
        Protocol::Udp => Err("clients come over tcp".to_owned()),
    }
}
