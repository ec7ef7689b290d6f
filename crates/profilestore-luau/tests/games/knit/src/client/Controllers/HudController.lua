error("a controller is required on no server")
