local Players = game:GetService("Players")
local ReplicatedStorage = game:GetService("ReplicatedStorage")
local ServerScriptService = game:GetService("ServerScriptService")

local Knit = require(ReplicatedStorage.Packages.Knit)
local Promise = require(ReplicatedStorage.Packages.Promise)
local ProfileStore = require(ServerScriptService.ProfileStore)
local Template = require(ReplicatedStorage.Shared.Template)

local DataService = Knit.CreateService({ Name = "DataService", Client = {} })

-- A promise of each player's profile.
local profiles = {}

function DataService:Profile(player)
	return profiles[player] or Promise.reject(`{player.Name} is not here`)
end

function DataService:KnitInit()
	self.Store = ProfileStore.New("Knit", Template)
	local function joined(player)
		profiles[player] = Promise.new(function(resolve, reject)
			local profile = self.Store:StartSessionAsync(`Player_{player.UserId}`, {
				Cancel = function()
					return not player:IsDescendantOf(Players)
				end,
			})
			if not profile then
				player:Kick("try again")
				return reject("no session")
			end
			profile:AddUserId(player.UserId)
			profile:Reconcile()
			profile.OnSessionEnd:Connect(function()
				profiles[player] = nil
				player:Kick("the session has ended")
			end)
			resolve(profile)
		end)
	end
	Players.PlayerAdded:Connect(joined)
	Players.PlayerRemoving:Connect(function(player)
		self:Profile(player):andThen(function(profile)
			profile:EndSession()
		end):catch(warn)
	end)
	for _, player in Players:GetPlayers() do
		task.spawn(joined, player)
	end
end

return DataService
