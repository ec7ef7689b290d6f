-- What crosses between servers and clients: a folder of remotes for each service.
local Comm = { ServerComm = {} }
local ServerComm = Comm.ServerComm
ServerComm.__index = ServerComm

local function folder(name, parent)
	local there = parent:FindFirstChild(name)
	if not there then
		there = Instance.new("Folder")
		there.Name = name
		there.Parent = parent
	end
	return there
end

function ServerComm.new(parent, namespace)
	assert(not parent:FindFirstChild(namespace), `there are two services {namespace}`)
	return setmetatable({ _folder = folder(namespace, parent) }, ServerComm)
end

function ServerComm:WrapMethod(service, name)
	local remote = Instance.new("RemoteFunction")
	remote.Name = name
	remote.OnServerInvoke = function(...)
		return service[name](service, ...)
	end
	remote.Parent = folder("RF", self._folder)
end

function ServerComm:CreateSignal(name)
	local remote = Instance.new("RemoteEvent")
	remote.Name = name
	remote.Parent = folder("RE", self._folder)
	local signal = {}
	function signal:Connect(listener)
		return remote.OnServerEvent:Connect(listener)
	end
	function signal:Fire(player, ...)
		remote:FireClient(player, ...)
	end
	function signal:FireAll(...)
		remote:FireAllClients(...)
	end
	return signal
end

return Comm
