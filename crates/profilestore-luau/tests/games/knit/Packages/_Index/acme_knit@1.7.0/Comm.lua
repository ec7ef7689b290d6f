return require(script.Parent.Parent["acme_comm@1.0.1"]["comm"])
