error("a client's service runs on no server")
