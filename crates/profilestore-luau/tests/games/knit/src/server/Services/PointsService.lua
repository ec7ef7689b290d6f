local ReplicatedStorage = game:GetService("ReplicatedStorage")
local Knit = require(ReplicatedStorage.Packages.Knit)

local PointsService = Knit.CreateService({
	Name = "PointsService",
	Client = { PointsChanged = Knit.CreateSignal() },
})

function PointsService:Add(player, points)
	return self.DataService:Profile(player):andThen(function(profile)
		profile.Data.Points += points
		self.Client.PointsChanged:Fire(player, profile.Data.Points)
		return profile.Data.Points
	end)
end

function PointsService.Client:Earn(player, points)
	if type(points) ~= "number" or points <= 0 or points > 10 then
		return false
	end
	return self.Server:Add(player, points):expect()
end

function PointsService:KnitInit()
	self.DataService = Knit.GetService("DataService")
end

function PointsService:KnitStart()
	Knit.OnStart():andThen(function()
		print("points can be earned")
	end)
end

return PointsService
