//! TLS to a server of the test's own: verified, or refused.

use profilestore::data_store::{DataStore as _, PostgresOptions, PostgresStore, StoreError};
use profilestore_testbed::PostgresServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Writes a file as the server's own user, whom alone it may belong to.
fn write(server: &PostgresServer, name: &str, text: &str) {
    let path = server.folder().join("data").join(name);
    let program = format!("umask 077; cat >{}", path.display());
    let sql = format!(
        "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM '{program}'",
        text.trim()
    );
    server.sql(&sql).unwrap();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Gives the server a certificate for a name.
fn certify(server: &PostgresServer, authority: &CertifiedIssuer<'_, KeyPair>, name: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    write(server, "server.crt", &certificate.pem());
    write(server, "server.key", &key.serialize_pem());
    server.sql("ALTER SYSTEM SET ssl = on").unwrap();
    server.sql("SELECT pg_reload_conf()").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_names_are_verified() {
    let server = PostgresServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    for (name, authority) in [("ours", &ours), ("other", &other)] {
        std::fs::write(folder.path().join(name), authority.pem()).unwrap();
    }
    let roots = |name: &str| format!("sslrootcert={}", folder.path().join(name).display());
    let options = |host: &str, parameters: &str| -> PostgresOptions {
        format!(
            "postgres://postgres:hush@{host}:{}/postgres?application_name=tls&{parameters}",
            server.port()
        )
        .parse()
        .unwrap()
    };
    PostgresStore::migrate(&options("localhost", "sslmode=disable"), None).await.unwrap();

    let refused =
        PostgresStore::open(options("localhost", &format!("sslmode=require&{}", roots("ours"))))
            .await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "the server has no TLS yet: {refused:?}"
    );

    certify(&server, &ours, "localhost");
    for mode in ["require", "verify-full"] {
        // The server reads its certificate by and by.
        let opened = async {
            loop {
                match PostgresStore::open(options(
                    "localhost",
                    &format!("sslmode={mode}&{}", roots("ours")),
                ))
                .await
                {
                    Ok(store) => return store,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        };
        let store =
            tokio::time::timeout(std::time::Duration::from_secs(100), opened).await.expect("TLS");
        store.identity().await.unwrap();
        let encrypted = server
            .sql(
                "SELECT count(*) FILTER (WHERE ssl) = count(*) AND count(*) >= 1 FROM \
                pg_stat_ssl JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'tls'",
            )
            .unwrap();
        assert_eq!(encrypted, "t");
    }
    for (host, root) in [("localhost", "other"), ("127.0.0.1", "ours")] {
        match PostgresStore::open(options(host, &format!("sslmode=require&{}", roots(root)))).await
        {
            Err(err @ StoreError::Unavailable { .. }) => {
                let text = format!("{err} {err:?}");
                assert!(text.contains("certificate") && !text.contains("hush"), "{text}");
            }
            other => panic!("expected a refusal of {root} for {host}, found {other:?}"),
        }
    }
}
