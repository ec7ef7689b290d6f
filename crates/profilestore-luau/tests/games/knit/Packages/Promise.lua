return require(script.Parent._Index["acme_promise@4.0.0"]["promise"])
