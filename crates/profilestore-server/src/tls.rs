//! TLS: the certificate's files, read at the start and again when they change.

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// The files of a certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that it rests on.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificate cannot be used: {why}: file=`{}`", file.display())]
pub struct TlsError {
    file: PathBuf,
    why: String,
}

impl TlsFiles {
    /// Reads them. Fails when one cannot be read, or when they do not belong together.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let wrong = |file: &PathBuf, why: &dyn fmt::Display| TlsError {
            file: file.clone(),
            why: why.to_string(),
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(wrong(&self.certificate, &"there is no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                let why =
                    "there is no private key in it; one that a password protects cannot be used";
                wrong(&self.key, &why)
            }
            error => wrong(&self.key, &error),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.certificate, &error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// When they were written last, as far as that can be told.
    fn written(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key]
            .map(|file| std::fs::metadata(file).and_then(|data| data.modified()).ok())
    }
}

/// A certificate in use, which follows its files.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    loaded: RwLock<([Option<SystemTime>; 2], Arc<ServerConfig>)>,
}

impl Certificate {
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let written = files.written();
        let config = files.load()?;
        Ok(Self { files, loaded: RwLock::new((written, config)) })
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.loaded.read().1.clone()
    }

    /// Reads the files again if they have changed. A pair that cannot be used is told in the log,
    /// and the one before stays in use.
    pub(crate) fn refresh(&self) {
        let written = self.files.written();
        if self.loaded.read().0 == written {
            return;
        }
        match self.files.load() {
            Ok(config) => {
                *self.loaded.write() = (written, config);
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::error!(%error, "the certificate of before stays in use"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a key that a password protects it was said that no items were found.
    #[test]
    fn a_file_without_a_key_that_can_be_used_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, label: &str| {
            let file = folder.path().join(name);
            let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            std::fs::write(&file, text).unwrap();
            file
        };
        let files = TlsFiles {
            certificate: written("c.pem", "CERTIFICATE"),
            key: written("k.pem", "ENCRYPTED PRIVATE KEY"),
        };
        let told = files.load().unwrap_err().to_string();
        assert!(told.contains("there is no private key in it"), "{told}");
        assert!(told.contains("k.pem"), "{told}");
    }
}
