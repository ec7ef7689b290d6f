use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use super::*;

fn request(method: &str, url: String) -> Request {
    Request { method: method.into(), url, headers: BTreeMap::new(), body: Vec::new() }
}

fn host(text: &str) -> HttpHost {
    text.parse().expect("a host")
}

/// A server on this computer that gives these answers, one to each connection, and then what it was
/// asked.
fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serve = move || {
        answers
            .into_iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let asked = head_of(&mut stream);
                stream.write_all(answer.as_bytes()).expect("it is written");
                asked
            })
            .collect()
    };
    (address, thread::spawn(serve))
}

fn head_of(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("it is read") == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head")
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

#[test]
fn hosts_are_named_exactly() {
    for (named, url, allowed) in [
        ("a.example", "http://a.example/x", true),
        ("A.Example", "https://a.EXAMPLE", true),
        ("a.example", "https://a.example:443", true),
        ("a.example", "https://a.example:80", false),
        ("a.example", "http://a.example:8080", false),
        ("a.example:8080", "http://a.example:8080", true),
        ("a.example:8080", "http://a.example", false),
        ("a.example", "http://b.a.example", false),
        ("a.example", "http://a.example.evil", false),
        ("a.example", "http://a.example@evil", false),
        ("a.example", "ftp://a.example", false),
        ("[::1]:80", "http://[::1]/", true),
    ] {
        let uri: Uri = url.parse().expect("an address");
        assert_eq!(host(named).allows(&uri), allowed, "{named} {url}");
    }
    for wrong in
        ["", "http://a.example", "a.example/x", "a:b", "a:", "a:99999", "u@a", "*.a", "a b"]
    {
        let error = wrong.parse::<HttpHost>().expect_err(wrong).to_string();
        assert!(error.contains("names no host"), "{error}");
    }
}

#[test]
fn a_host_that_is_not_named_is_refused_before_anything_is_sent() {
    let client = Client::new(vec![host("a.example")], 0);
    let error = client.send(&request("GET", "http://127.0.0.1:9/".into())).expect_err("refused");
    assert_eq!(error, "no --allow-http names the host 127.0.0.1:9");
}

#[test]
fn a_redirect_to_another_host_is_refused_and_one_to_the_same_is_followed() {
    let moved = |to: &str| answer("302 Found", &format!("Location: {to}\r\n"), "");
    let answers = vec![
        moved("/there"),
        answer("200 OK", "X-A: b\r\n", "hello"),
        moved("http://localhost:9/"),
    ];
    let (address, served) = server(answers);
    let client = Client::new(vec![host(&address)], 7);
    let response = client.send(&request("GET", format!("http://{address}/"))).expect("an answer");
    assert_eq!((response.status, &*response.body), (200, &b"hello"[..]));
    assert_eq!((&*response.message, &*response.headers["x-a"]), ("OK", "b"));
    let error = client.send(&request("GET", format!("http://{address}/"))).expect_err("refused");
    assert_eq!(error, "no --allow-http names the host localhost:9");
    let asked = served.join().expect("the server ends");
    assert!(asked[1].starts_with("GET /there HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].to_ascii_lowercase().contains("roblox-id: 7\r\n"), "{asked:?}");
}

#[test]
fn an_answer_that_is_too_long_or_never_comes_is_an_error() {
    let (address, served) = server(vec![answer("200 OK", "", &"x".repeat(1001))]);
    let bounds = Bounds { time: Duration::from_secs(30), size: 1000 };
    let client = Client::bounded(vec![host(&address)], 0, bounds);
    let error = client.send(&request("GET", format!("http://{address}/"))).expect_err("too long");
    assert_eq!(error, "HttpError: OutOfMemory (the answer has more than 1000 bytes)");
    served.join().expect("the server ends");
    // Nobody accepts the connection, so no answer ever comes.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let bounds = Bounds { time: Duration::from_millis(100), size: 1000 };
    let client = Client::bounded(vec![host(&address)], 0, bounds);
    let error = client.send(&request("GET", format!("http://{address}/"))).expect_err("silent");
    assert!(error.starts_with("HttpError: TimedOut"), "{error}");
    drop(silent);
    let error = client.send(&request("GET", format!("http://{address}/"))).expect_err("gone");
    assert!(error.starts_with("HttpError: ConnectFail"), "{error}");
}

#[test]
fn what_roblox_would_not_send_is_not_sent() {
    let client = Client::new(vec![host("127.0.0.1:9")], 0);
    let refused = |change: fn(&mut Request)| {
        let mut request = request("POST", "http://127.0.0.1:9/".into());
        change(&mut request);
        client.send(&request).expect_err("refused")
    };
    let error = refused(|request| {
        request.headers.insert("User-Agent".into(), "me".into());
    });
    assert_eq!(error, "Header \"User-Agent\" is not allowed!");
    let error = refused(|request| request.body = vec![0; MAX_SENT + 1]);
    assert!(error.contains("at most 1048576 are sent"), "{error}");
    let error = refused(|request| (request.method, request.body) = ("GET".into(), vec![0]));
    assert_eq!(error, "a request with the method GET has no body");
    let error = refused(|request| request.method = "TRACE".into());
    assert!(error.starts_with("the method TRACE is none of GET, HEAD"), "{error}");
    let error = refused(|request| request.url = "http://127.0.0.1:9/a b".into());
    assert!(error.starts_with("HttpError: InvalidUrl"), "{error}");
}
