// Written by console/scripts/pack.js: what the console is made of.
[
    File {
        path: "/assets/icon-DFY3n9Ea.svg",
        media: "image/svg+xml",
        plain: include_bytes!("assets-icon-DFY3n9Ea.svg"),
        packed: include_bytes!("assets-icon-DFY3n9Ea.svg.gz"),
    },
    File {
        path: "/assets/index-C9vgH4v7.css",
        media: "text/css; charset=utf-8",
        plain: include_bytes!("assets-index-C9vgH4v7.css"),
        packed: include_bytes!("assets-index-C9vgH4v7.css.gz"),
    },
    File {
        path: "/assets/index-DnGuAuQN.js",
        media: "text/javascript; charset=utf-8",
        plain: include_bytes!("assets-index-DnGuAuQN.js"),
        packed: include_bytes!("assets-index-DnGuAuQN.js.gz"),
    },
    File {
        path: "/",
        media: "text/html; charset=utf-8",
        plain: include_bytes!("index.html"),
        packed: include_bytes!("index.html.gz"),
    },
]
