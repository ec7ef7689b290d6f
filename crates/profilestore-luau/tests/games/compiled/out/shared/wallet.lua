-- Compiled with roblox-ts v0.0.0
local Wallet
do
	Wallet = setmetatable({}, {
		__tostring = function()
			return "Wallet"
		end,
	})
	Wallet.__index = Wallet
	function Wallet.new(...)
		local self = setmetatable({}, Wallet)
		return self:constructor(...) or self
	end
	function Wallet:constructor(data)
		self.data = data
	end
	function Wallet:add(coins)
		self.data.coins += coins
		return self.data.coins
	end
end
return {
	Wallet = Wallet,
}
