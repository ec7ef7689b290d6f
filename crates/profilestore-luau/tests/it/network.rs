//! HttpService with a real network: a server on this computer.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    thread::{self, JoinHandle},
};

use profilestore_luau::{GameBuilder, HttpHost};

use crate::run;

/// A server that gives these answers, one to each connection, and then what it was asked: the first
/// line, the headers, and the body.
fn server(answers: Vec<(&'static str, &'static str)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serve = move || {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
            let (mut text, mut length) = (String::new(), 0);
            while !text.ends_with("\r\n\r\n") {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                text += &line;
            }
            let mut given = vec![0; length];
            reader.read_exact(&mut given).expect("a body");
            asked.push(text + &String::from_utf8_lossy(&given));
            let head = "Content-Type: text/plain\r\nConnection: close";
            let answer =
                format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((answer + body).as_bytes()).expect("it is written");
        }
        asked
    };
    (address, thread::spawn(serve))
}

fn allowed(host: &str) -> impl FnOnce(GameBuilder) -> GameBuilder {
    let host: HttpHost = host.parse().expect("a host");
    move |game| game.allow_http(host)
}

#[test]
fn scripts_reach_a_host_that_is_named_and_no_other() {
    let (address, served) =
        server(vec![("200 OK", "hello"), ("404 Not Found", "a\0b"), ("500 Internal Error", "")]);
    let source = "
        local Http, began = game:GetService('HttpService'), os.clock()
        assert(Http:GetAsync('http://HOST/a?b=c') == 'hello')
        local options = { Url = 'http://HOST/b', Method = 'POST', Body = 'one', Headers = { Key = 'v' } }
        local response = Http:RequestAsync(options)
        assert(not response.Success and response.StatusCode == 404)
        assert(response.StatusMessage == 'Not Found' and response.Body == 'a\\0b')
        assert(response.Headers['content-type'] == 'text/plain')
        print((select(2, pcall(function() Http:PostAsync('http://HOST/c', '{}') end))))
        print((select(2, pcall(function() Http:GetAsync('http://localhost:9') end))))
        -- Virtual time stands still.
        assert(os.clock() - began < 1)"
        .replace("HOST", &address);
    let printed = run(&source, allowed(&address)).succeeded();
    assert_eq!(
        printed,
        [
            "game:9: HTTP 500 (Internal Server Error)",
            "game:10: no --allow-http names the host localhost:9"
        ]
    );
    let asked = served.join().expect("the server ends");
    assert!(asked[0].starts_with("GET /a?b=c HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[1].starts_with("POST /b HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[1].to_ascii_lowercase().contains("\r\nkey: v\r\n"), "{asked:?}");
    assert!(asked[1].ends_with("\r\n\r\none") && asked[2].ends_with("\r\n\r\n{}"), "{asked:?}");
    assert!(asked[2].to_ascii_lowercase().contains("content-type: application/json"), "{asked:?}");
}

#[test]
fn a_server_makes_500_requests_in_a_minute_and_no_more() {
    let source = "
        local Http = game:GetService('HttpService')
        local function refused()
            local ok, problem = pcall(Http.GetAsync, Http, 'http://localhost:9')
            assert(not ok)
            return problem
        end
        for _ = 1, 500 do
            assert(string.find(refused(), 'names the host', 1, true))
        end
        assert(string.find(refused(), 'Number of requests exceeded limit', 1, true))
        task.wait(60)
        assert(string.find(refused(), 'names the host', 1, true))";
    run(source, allowed("a.example")).succeeded();
}
