return require(script.Parent._Index["acme_knit@1.7.0"]["knit"])
