//! TLS from certificate files. A renewed certificate is taken at the next reload.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::config_file::TlsFiles;

/// The certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("TLS file {} cannot be used: {source}. It must be PEM and readable.", path.display())]
    File { path: PathBuf, source: pem::Error },
    #[error("the TLS certificate and its key do not fit: {0}")]
    Config(#[from] rustls::Error),
}

/// The acceptor that new connections use.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<Mutex<TlsAcceptor>>);

impl Acceptor {
    pub(crate) fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        load(files).map(|acceptor| Self(Arc::new(Mutex::new(acceptor))))
    }

    /// Takes certificates anew; on an error the old ones stay.
    pub(crate) fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let acceptor = load(files)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    pub(crate) fn current(&self) -> TlsAcceptor {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let error = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(error(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(error(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
