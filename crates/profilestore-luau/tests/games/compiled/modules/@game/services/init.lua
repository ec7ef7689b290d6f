return setmetatable({}, {
	__index = function(self, name)
		local service = game:GetService(name)
		self[name] = service
		return service
	end,
})
