error("no client's framework runs on a server")
