//! The option `tls` of listeners and of upstreams.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::SELF_SIGNED;

/// How a listener takes TLS: with one certificate, or with several to choose from by the name that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// `"self-signed"`.
    SelfSigned,
    /// One table.
    One(Box<CertOptions>),
    /// A list of tables.
    Many(Vec<CertOptions>),
}

/// A certificate of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertOptions {
    /// The file of the certificate, in PEM, followed by those that lead to a root. `"self-signed"` makes one for
    /// `localhost`, for development. Required.
    pub cert: String,
    /// The file of its private key, in PEM and not encrypted. Required, but for `"self-signed"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Clients have to prove who they are by a certificate that comes from one of those in this PEM file. In a list
    /// of certificates the first says this for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    /// The application protocols that a client may choose from (ALPN), the preferred first, as in
    /// `["h2", "http/1.1"]`. A client that offers only others is refused. Without any this is left to both ends. In a
    /// list of certificates the first says this for all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// Refuses clients that ask for a name that is in no certificate, or for none. By default they get the first
    /// certificate. In a list of certificates the first says this for all of them.
    pub strict_sni: bool,
}

/// How an upstream's servers are talked to: in the clear, or by TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerTls {
    /// `false`.
    #[default]
    Off,
    /// `true`, which is an empty table, or a table.
    On(Box<PeerTlsOptions>),
}

/// TLS to the servers of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeerTlsOptions {
    /// The name that a server is asked for and has to prove. By default the host under which it is listed, a name or
    /// an IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A server's certificate has to come from one of those in this PEM file. By default from those that the system
    /// trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The file of the certificate to show to servers that ask for one, in PEM; with `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// The file of its private key, in PEM and not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The application protocols to offer (ALPN), the preferred first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// Believes whoever answers: anybody on the way can read and change everything.
    pub insecure_skip_verify: bool,
}

impl ListenerTls {
    /// Its certificates with where each was written: none for the text, or its index in a list.
    pub fn certificates(&self) -> Vec<(Option<usize>, Cow<'_, CertOptions>)> {
        match self {
            ListenerTls::SelfSigned => {
                let cert = CertOptions { cert: SELF_SIGNED.to_owned(), ..CertOptions::default() };
                vec![(None, Cow::Owned(cert))]
            }
            ListenerTls::One(cert) => vec![(None, Cow::Borrowed(cert))],
            ListenerTls::Many(certs) => {
                certs.iter().enumerate().map(|(i, cert)| (Some(i), Cow::Borrowed(cert))).collect()
            }
        }
    }
}

impl Serialize for ListenerTls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ListenerTls::SelfSigned => serializer.serialize_str(SELF_SIGNED),
            ListenerTls::One(cert) => cert.serialize(serializer),
            ListenerTls::Many(certs) => certs.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ListenerTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListenerVisitor)
    }
}

struct ListenerVisitor;

impl<'de> Visitor<'de> for ListenerVisitor {
    type Value = ListenerTls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a table like { cert = \"cert.pem\", key = \"key.pem\" }, a list of such tables, or \"self-signed\"",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ListenerTls, E> {
        match text {
            SELF_SIGNED => Ok(ListenerTls::SelfSigned),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenerTls, A::Error> {
        CertOptions::deserialize(MapAccessDeserializer::new(map)).map(|cert| ListenerTls::One(Box::new(cert)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ListenerTls, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(ListenerTls::Many)
    }
}

impl JsonSchema for ListenerTls {
    fn schema_name() -> Cow<'static, str> {
        "ListenerTls".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<CertOptions>();
        json_schema!({
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }, { "const": SELF_SIGNED }],
        })
    }
}

impl Serialize for PeerTls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            PeerTls::Off => serializer.serialize_bool(false),
            PeerTls::On(options) if **options == PeerTlsOptions::default() => serializer.serialize_bool(true),
            PeerTls::On(options) => options.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PeerTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeerVisitor)
    }
}

struct PeerVisitor;

impl<'de> Visitor<'de> for PeerVisitor {
    type Value = PeerTls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a table like { server_name = \"app.internal\", ca = \"ca.pem\" }")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<PeerTls, E> {
        Ok(if on { PeerTls::On(Box::default()) } else { PeerTls::Off })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PeerTls, A::Error> {
        PeerTlsOptions::deserialize(MapAccessDeserializer::new(map))
            .map(|options| PeerTls::On(Box::new(options)))
    }
}

impl JsonSchema for PeerTls {
    fn schema_name() -> Cow<'static, str> {
        "PeerTls".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<PeerTlsOptions>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, table] })
    }
}
