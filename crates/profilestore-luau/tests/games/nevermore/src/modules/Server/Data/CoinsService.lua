local require = require(script.Parent.loader).load(script)

local Players = game:GetService("Players")

local Maid = require("Maid")
local CoinsConstants = require("CoinsConstants")

local CoinsService = { ServiceName = "CoinsService" }

function CoinsService:Init(serviceBag)
	self._maid = Maid.new()
	self._playerDataService = serviceBag:GetService(require("PlayerDataService"))
end

function CoinsService:Start()
	self._maid:GiveTask(Players.PlayerAdded:Connect(function(player)
		self:_joined(player)
	end))
	for _, player in Players:GetPlayers() do
		task.spawn(self._joined, self, player)
	end
end

function CoinsService:_joined(player)
	local data, problem = self._playerDataService:LoadData(player)
	if not data then
		player:Kick(problem)
		return
	end
	data.coins = (data.coins or CoinsConstants.START) + CoinsConstants.GIFT
	player:SetAttribute("Coins", data.coins)
	print(player.Name, "has", player:GetAttribute("Coins"))
end

function CoinsService:Destroy()
	self._maid:DoCleaning()
end

return CoinsService
