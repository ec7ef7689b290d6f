-- A framework of services: all are made, then all are initialised, then all start.
local KnitServer = { Util = script.Parent.Parent }
local Promise = require(KnitServer.Util.Promise)
local Comm = require(KnitServer.Util.Comm)

local SIGNAL = newproxy(true)
getmetatable(SIGNAL).__tostring = function()
	return "SIGNAL"
end

local repServices = Instance.new("Folder")
repServices.Name = "Services"

local services = {}
local started, startedComplete = false, false
local onStarted = Instance.new("BindableEvent")

function KnitServer.CreateService(definition)
	assert(type(definition.Name) == "string" and #definition.Name > 0, "a service has a name")
	assert(services[definition.Name] == nil, `there are two services {definition.Name}`)
	assert(not started, "services are made before Knit starts")
	local service = definition
	service.Comm = Comm.ServerComm.new(repServices, definition.Name)
	service.Client = service.Client or {}
	service.Client.Server = service
	services[service.Name] = service
	return service
end

function KnitServer.AddServicesDeep(parent)
	local added = {}
	for _, module in parent:GetDescendants() do
		if module:IsA("ModuleScript") then
			table.insert(added, require(module))
		end
	end
	return added
end

function KnitServer.GetService(name)
	assert(started, "Knit has not started")
	return assert(services[name], `there is no service {name}`)
end

function KnitServer.CreateSignal()
	return SIGNAL
end

local function expose(service)
	for name, member in service.Client do
		if type(member) == "function" then
			service.Comm:WrapMethod(service.Client, name)
		elseif member == SIGNAL then
			service.Client[name] = service.Comm:CreateSignal(name)
		end
	end
end

local function initialised()
	local promises = {}
	for _, service in services do
		if type(service.KnitInit) == "function" then
			table.insert(promises, Promise.new(function(resolve)
				debug.setmemorycategory(service.Name)
				service:KnitInit()
				resolve()
			end))
		end
	end
	return Promise.all(promises)
end

function KnitServer.Start()
	if started then
		return Promise.reject("Knit has started")
	end
	started = true
	table.freeze(services)
	return Promise.new(function(resolve)
		for _, service in services do
			expose(service)
		end
		resolve(initialised())
	end):andThen(function()
		for _, service in services do
			if type(service.KnitStart) == "function" then
				task.spawn(function()
					debug.setmemorycategory(service.Name)
					service:KnitStart()
				end)
			end
		end
		startedComplete = true
		onStarted:Fire()
		task.defer(onStarted.Destroy, onStarted)
		repServices.Parent = script.Parent
	end)
end

function KnitServer.OnStart()
	if startedComplete then
		return Promise.resolve()
	end
	return Promise.new(function(resolve)
		onStarted.Event:Wait()
		resolve()
	end)
end

return KnitServer
