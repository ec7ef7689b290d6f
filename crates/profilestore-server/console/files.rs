// Written by console/scripts/pack.js: what the console is made of.
[
    File {
        path: "/assets/icon-DFY3n9Ea.svg",
        media: "image/svg+xml",
        plain: include_bytes!("assets-icon-DFY3n9Ea.svg"),
        packed: include_bytes!("assets-icon-DFY3n9Ea.svg.gz"),
    },
    File {
        path: "/assets/index-CX29stf5.css",
        media: "text/css; charset=utf-8",
        plain: include_bytes!("assets-index-CX29stf5.css"),
        packed: include_bytes!("assets-index-CX29stf5.css.gz"),
    },
    File {
        path: "/assets/index-hw-NGGjL.js",
        media: "text/javascript; charset=utf-8",
        plain: include_bytes!("assets-index-hw-NGGjL.js"),
        packed: include_bytes!("assets-index-hw-NGGjL.js.gz"),
    },
    File {
        path: "/",
        media: "text/html; charset=utf-8",
        plain: include_bytes!("index.html"),
        packed: include_bytes!("index.html.gz"),
    },
]
