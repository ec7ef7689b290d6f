local require = require(script.Parent.loader).load(script)

local GameServiceServer = { ServiceName = "GameServiceServer" }

function GameServiceServer:Init(serviceBag)
	self._serviceBag = assert(serviceBag, "no bag")
	self._serviceBag:GetService(require("PlayerDataService"))
	self._coinsService = self._serviceBag:GetService(require("CoinsService"))
end

function GameServiceServer:Start()
	print(self.ServiceName, "starts with", self._coinsService.ServiceName)
end

function GameServiceServer:Destroy() end

return GameServiceServer
