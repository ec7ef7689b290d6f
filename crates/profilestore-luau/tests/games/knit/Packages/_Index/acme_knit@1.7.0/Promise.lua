return require(script.Parent.Parent["acme_promise@4.0.0"]["promise"])
