//! Connections: which host is meant, TLS, strangers that send nothing, and stopping.

use std::{fs, io, sync::Arc, time::Duration};

use profilestore_server::config::Options;
use profilestore_testbed::GameClient;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

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
    for host in [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        ":7400",
        "evil.example@localhost",
        "127.0.0.1.nip.io",
        // Two of them.
        "localhost\r\nHost: evil.example",
    ] {
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
    let options = Options {
        tls_certificate: Some(certificate.clone()),
        tls_key: Some(key.clone()),
        request_seconds: Some(600),
        ..Options::default()
    };
    let served = Served::with(options).await;
    let stream = over_tls(&served, made.cert.der()).await.unwrap();
    let answer = served.admin().send_over(stream, "GET", "/healthz", None).await;
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    // A request that is under way over the old one all the while.
    let mut old = over_tls(&served, made.cert.der()).await.unwrap();
    let head = format!(
        "PUT /v1/stores/S/profiles/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         If-None-Match: *\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 11\r\n\r\n",
        served.admin
    );
    old.write_all(head.as_bytes()).await.unwrap();
    // A pair that does not belong together changes nothing. The new one is taken when it is whole.
    let new = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, new.cert.pem()).unwrap();
    assert!(over_tls(&served, made.cert.der()).await.is_ok());
    fs::write(&key, new.signing_key.serialize_pem()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let stream = loop {
        match over_tls(&served, new.cert.der()).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "the old one is shown: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let answer = served.admin().send_over(stream, "GET", "/healthz", None).await;
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    assert!(over_tls(&served, made.cert.der()).await.is_err(), "the old one is gone");
    old.write_all(b"{\"data\":[]}").await.unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // Without TLS nothing is answered.
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

/// A connection to a server that must show this certificate.
async fn over_tls(served: &Served, shown: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(shown.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

/// A client that sends its whole body first, and then reads.
#[tokio::test]
async fn a_body_over_the_limit_is_answered_and_not_cut_off() {
    let served = Served::start().await;
    let path = "/v1/stores/S/profiles/x";
    let body = vec![b' '; 32 << 20];
    for (key, status) in [(&*served.admin, "413"), ("ps_none", "401")] {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             If-None-Match: *\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn a_game_servers_connection_counts_among_the_connections() {
    let served = Served::with(Options { max_connections: Some(2), ..Options::default() }).await;
    let connect = async |job: &str| GameClient::connect(served.address, &served.admin, job).await;
    let (first, _second) = (connect("a").await, connect("b").await);
    let admin = served.admin();
    let waiting = tokio::spawn(async move { admin.get("/healthz").await.status });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "there is no place");
    drop(first);
    assert_eq!(waiting.await.unwrap(), 200);
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
         Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n",
        served.admin
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // Another answer says that the server has read the head by now, or will before it stops.
    assert_eq!(Client::without_key(address).get("/healthz").await.status, 200);
    tokio::task::yield_now().await;
    let stopping = tokio::spawn(served.stop());
    begun.write_all(b"{\"data\":[]}").await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(stopping.await.unwrap());
    assert!(TcpStream::connect(address).await.is_err());
}
