//! Connections: which host is meant, TLS, strangers that send nothing, and stopping.

use std::{fs, sync::Arc, time::Duration};

use profilestore_server::config::Options;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{Served, client::Client, refused};

#[tokio::test]
async fn on_loopback_another_hosts_name_is_refused() {
    let served = Served::start().await;
    let port = served.address.port();
    let named = |host: &str| served.admin().header("Host", host);
    for host in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "127.0.0.2"] {
        assert_eq!(named(host).get("/healthz").await.status, 200, "{host}");
        let host = format!("{host}:{port}");
        assert_eq!(named(&host).get("/healthz").await.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.nip.io"] {
        refused(&named(host).get("/healthz").await, 421, "misdirected");
    }
    let behind = Options { trust_proxy: Some(true), ..Options::default() };
    let served = Served::with(behind).await;
    let named = served.admin().header("Host", "profiles.example");
    assert_eq!(named.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told() {
    let served = Served::start().await;
    let admin = served.admin();
    refused(&admin.get("/v2/stores").await, 404, "no-such-resource");
    refused(&admin.delete("/v1/stores").await, 405, "method-not-allowed");
    refused(&admin.get("/errors/nothing").await, 404, "no-such-resource");
    let long = format!("/v1/stores/{}/profiles/x", "s".repeat(51));
    refused(&admin.get(&long).await, 400, "invalid");
    refused(&admin.get("/v1/stores/S/profiles/%FF").await, 400, "invalid");
}

#[tokio::test]
async fn tls_is_spoken_and_a_new_certificate_is_taken_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options =
        Options { tls_certificate: Some(certificate), tls_key: Some(key), ..Options::default() };
    let served = Served::with(options).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let answer = served.admin().send_over(stream, "GET", "/healthz", None).await;
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    // Without TLS nothing is answered.
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn strangers_that_send_nothing_keep_nobody_out() {
    let served = Served::with(Options { max_connections: Some(500), ..Options::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let admin = served.admin();
    for _ in 0..20 {
        assert_eq!(admin.get("/healthz").await.status, 200);
    }
    // One that never ends its head is cut off.
    let mut slow = silent.pop().unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let cut = timeout(Duration::from_secs(60), slow.read_to_end(&mut rest)).await;
    assert!(cut.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_has_begun() {
    let served = Served::start().await;
    let address = served.address;
    let mut begun = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /v1/stores/S/profiles/x HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n",
        served.admin
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // Another answer says that the server has read the head by now, or will before it stops.
    assert_eq!(Client::without_key(address).get("/healthz").await.status, 200);
    tokio::task::yield_now().await;
    let stopping = tokio::spawn(served.stop());
    begun.write_all(b"{\"data\":1}").await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(stopping.await.unwrap());
    assert!(TcpStream::connect(address).await.is_err());
}
