error("a client's script runs on no server")
