//! TLS settings: `rustls` with the ring provider.
//!
//! The system's authorities come first, because people who run their own portal have their own; the bundled set serves
//! only machines whose store is empty, such as bare containers.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

/// Authorities that may vouch for the portal.
#[derive(Debug, Clone, Default)]
pub enum TlsRoots {
    /// The system's store (or the file that `SSL_CERT_FILE` names); the bundled set when that is empty.
    #[default]
    System,
    /// Exactly these.
    Only(Vec<CertificateDer<'static>>),
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate of [`TlsRoots::Only`] is not usable, or the provider lacks a protocol version.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Builds the settings, once per channel.
pub(super) fn config(roots: TlsRoots) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn store(roots: TlsRoots) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        TlsRoots::Only(certificates) => {
            for certificate in certificates {
                store.add(certificate)?;
            }
        }
        TlsRoots::System => {
            let native = rustls_native_certs::load_native_certs();
            for error in native.errors {
                tracing::debug!(%error, "skipping part of the system's certificates");
            }
            store.add_parsable_certificates(native.certs);
            if store.is_empty() {
                tracing::debug!("the system has no certificates; using the bundled ones");
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_some_authorities() {
        assert!(!store(TlsRoots::System).unwrap().is_empty());
    }

    #[test]
    fn a_broken_authority_is_an_error() {
        let broken = vec![CertificateDer::from(vec![1, 2, 3])];
        assert!(config(TlsRoots::Only(broken)).is_err());
    }
}
