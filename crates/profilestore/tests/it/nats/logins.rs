//! Who may come in, over which connections.

use std::{fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use profilestore::{
    ErrorKind, ProfileKey, data_store::ServerId, env::Env, messenger::Hint,
    messenger::Messenger as _,
};
use profilestore_testbed::{NatsServer, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};

use super::*;

/// Hints go through the messenger that this address gives.
async fn works(address: &str) {
    let messenger = connect(address.parse().unwrap()).await;
    let (me, key) = (ServerId(Env::system().uuid()), ProfileKey::new("s", "g", "k").unwrap());
    let mut hints = messenger.subscribe(me).await;
    messenger.hint(me, &key).await;
    let heard = tokio::time::timeout(std::time::Duration::from_secs(10), hints.recv()).await;
    assert_eq!(heard.unwrap(), Some(Hint::Look(key)));
}

/// What is said when it does not; never with what is secret.
async fn fails(address: &str, kind: ErrorKind, word: &str) {
    let options: NatsOptions = address.parse().unwrap();
    let error = NatsMessenger::connect(options).await.unwrap_err();
    let said = format!("{error} / {error:?}");
    assert_eq!(error.kind(), kind, "{address}: {said}");
    assert!(error.to_string().contains(word), "{address}: {said}");
    assert!(!said.contains("hush"), "{said}");
}

#[tokio::test]
async fn users_passwords_and_tokens_are_sent_and_never_said() {
    let server = NatsServer::start(&["--user", "game", "--pass", "hush@1"]).unwrap();
    let port = server.port();
    works(&format!("nats://game:hush%401@127.0.0.1:{port}")).await;
    for wrong in ["", "game:hush2@", "hush%401@"] {
        fails(&format!("nats://{wrong}127.0.0.1:{port}"), ErrorKind::Invalid, "refused the login")
            .await;
    }
    let server = NatsServer::start(&["--auth", "hush1"]).unwrap();
    works(&format!("nats://hush1@127.0.0.1:{}", server.port())).await;
    fails(
        &format!("nats://hush2@127.0.0.1:{}", server.port()),
        ErrorKind::Invalid,
        "refused the login",
    )
    .await;
}

#[tokio::test]
async fn who_cannot_be_reached_is_named() {
    let port = free_port().unwrap();
    fails(
        &format!("nats://game:hush@127.0.0.1:{port}"),
        ErrorKind::Unavailable,
        &format!("servers=`nats://127.0.0.1:{port}`"),
    )
    .await;
    fails("nats://nowhere.invalid:4222", ErrorKind::Unavailable, "nats://nowhere.invalid:4222")
        .await;
    fails(
        "nats://localhost?creds=/nonexistent/hush.not/x.creds".replace("hush.not/", "").as_str(),
        ErrorKind::Invalid,
        "x.creds",
    )
    .await;
}

/// A signed claim, as NATS wants it.
fn jwt(claims: &serde_json::Value, issuer: &KeyPair) -> String {
    use serde_json::json;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string().as_bytes());
    let text = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    format!("{text}.{}", encode(&issuer.sign(text.as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_credentials_file_lets_in_with_the_least_rights() {
    use serde_json::json;
    let (operator, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let claims = |subject: &KeyPair, issuer: &KeyPair, nats: serde_json::Value| {
        jwt(
            &json!({ "jti": "x", "iat": 1, "iss": issuer.public_key(), "name": "n", "sub": subject.public_key(), "nats": nats }),
            issuer,
        )
    };
    let unlimited = json!({ "subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true });
    let operator_jwt = claims(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let account_jwt = claims(
        &account,
        &operator,
        json!({ "type": "account", "version": 2, "limits": unlimited }),
    );
    let rights = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        "pub": { "allow": ["game.hint.*"] }, "sub": { "allow": ["game.hint.*"] } });
    let user_jwt = claims(&user, &account, rights);
    let config = format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}\n",
        account.public_key()
    );
    let seed = user.seed().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    let server =
        NatsServer::configured(&config, |folder| fs::write(folder.join("user.creds"), creds))
            .unwrap();
    let file = server.folder().join("user.creds");
    works(&format!("{}?prefix=game&creds={}", server.address(), file.display())).await;
    fails(&server.address(), ErrorKind::Invalid, "refused the login").await;
}

/// An authority, and what it vouches for: a server on 127.0.0.1 and a client.
fn certificates(folder: &Path) -> io::Result<()> {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, TlsKey::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem())?;
    for name in ["server", "client"] {
        let key = TlsKey::generate().unwrap();
        let params =
            CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        fs::write(
            folder.join(format!("{name}.pem")),
            params.signed_by(&key, &authority).unwrap().pem(),
        )?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to() {
    let tls = "tls { cert_file: \"FOLDER/server.pem\", key_file: \"FOLDER/server.key\" }";
    let server = NatsServer::configured(tls, certificates).unwrap();
    let (port, ca) = (server.port(), server.folder().join("ca.pem"));
    works(&format!("tls://127.0.0.1:{port}?ca={}", ca.display())).await;
    works(&format!("nats://localhost:{port}?ca={}", ca.display())).await;
    fails(&format!("nats://u:hush@127.0.0.1:{port}"), ErrorKind::Invalid, "TLS").await;
    fails(
        &format!("nats://u:hush@127.0.0.1:{port}?ca=/nonexistent.pem"),
        ErrorKind::Invalid,
        "TLS",
    )
    .await;
}

#[tokio::test]
async fn tls_shows_the_clients_certificate() {
    let tls = "tls { cert_file: \"FOLDER/server.pem\", key_file: \"FOLDER/server.key\", ca_file: \
            \"FOLDER/ca.pem\", verify: true }";
    let server = NatsServer::configured(tls, certificates).unwrap();
    let file = |name: &str| server.folder().join(name).display().to_string();
    let address = format!("{}?ca={}", server.address(), file("ca.pem"));
    works(&format!("{address}&cert={}&key={}", file("client.pem"), file("client.key"))).await;
    let error = NatsMessenger::connect(address.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{error:?}");
}

/// A server that speaks no TLS gets no word where TLS is required, let alone a password.
#[tokio::test]
async fn nothing_is_said_unencrypted_where_tls_is_required() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"x","version":"2.9.10","proto":1,"host":"h","port":1,"max_payload":1048576}"#;
        client.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut said = vec![0; 1024];
        let n = client.read(&mut said).await.unwrap();
        said.truncate(n);
        said
    });
    let options: NatsOptions = format!("tls://game:hush@127.0.0.1:{port}").parse().unwrap();
    let error = NatsMessenger::connect(options).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{error:?}");
    let said = heard.await.unwrap();
    assert_eq!(said[0], 22, "a TLS handshake: {said:?}");
    assert!(!String::from_utf8_lossy(&said).contains("hush"));
}
