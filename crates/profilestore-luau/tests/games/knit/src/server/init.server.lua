local Knit = require(game:GetService("ReplicatedStorage").Packages.Knit)

Knit.AddServicesDeep(script.Services)

Knit.Start({ ServicePromises = false }):andThen(function()
	print("Knit started")
end):catch(warn)
