local ServerScriptService = game:GetService("ServerScriptService")

local loader = ServerScriptService.Game:FindFirstChild("LoaderUtils", true).Parent
local require = require(loader).bootstrapGame(ServerScriptService.Game)

local serviceBag = require("ServiceBag").new()
serviceBag:GetService(require("GameServiceServer"))
serviceBag:Start()

local replicated = game:GetService("ReplicatedStorage").Game
assert(replicated.gameClient.GameServiceClient and replicated.gameShared.CoinsConstants)
