-- Compiled with roblox-ts v0.0.0
local TS = require(game:GetService("ReplicatedStorage"):WaitForChild("rbxts_include"):WaitForChild("RuntimeLib"))
local _services = TS.import(script, TS.getModule(game:GetService("ReplicatedStorage"):WaitForChild("rbxts_include"), "@game", "services"))
local Players = _services.Players
local ServerScriptService = _services.ServerScriptService
local Wallet = TS.import(script, game:GetService("ReplicatedStorage"), "TS", "wallet").Wallet
local ProfileService = require(ServerScriptService:WaitForChild("ProfileService"))
local store = ProfileService.GetProfileStore("compiled", {
	coins = 0,
})
local profiles = {}
Players.PlayerAdded:Connect(function(player)
	local profile = store:LoadProfileAsync("player_" .. tostring(player.UserId), "ForceLoad")
	if profile == nil then
		return nil
	end
	local _player = player
	local _profile = profile
	profiles[_player] = _profile
	local wallet = Wallet.new(profile.Data)
	print("coins", wallet:add(7), tostring(Wallet))
end)
Players.PlayerRemoving:Connect(function(player)
	local _result = profiles[player]
	if _result ~= nil then
		_result:Release()
	end
	profiles[player] = nil
end)
