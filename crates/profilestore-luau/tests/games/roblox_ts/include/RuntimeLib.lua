-- What compiled scripts are run with: imports by path, which load each module once, and async.
local Promise = require(script.Parent.Promise)
local RunService = game:GetService("RunService")

local TS = { Promise = Promise }

local function isPlugin(context)
	return RunService:IsStudio() and context:FindFirstAncestorWhichIsA("Plugin") ~= nil
end

function TS.getModule(context, scope, name)
	-- Beside the package that imports, or among those of the game.
	local above = context
	while above do
		local folder = above:FindFirstChild("node_modules")
		local module = folder and folder:FindFirstChild(scope) and folder[scope]:FindFirstChild(name)
		if module then
			return module
		end
		above = above.Parent
	end
	assert(not isPlugin(context), "no plugin runs on a server")
	return script.Parent:WaitForChild("node_modules"):WaitForChild(scope):WaitForChild(name)
end

local loading = {}

function TS.import(context, module, ...)
	for _, name in { ... } do
		module = module:WaitForChild(name)
	end
	if module.ClassName ~= "ModuleScript" then
		error(`{context:GetFullName()} imports {module:GetFullName()}, which is no module`, 2)
	end
	loading[context] = module
	local at, steps = module, 0
	while at do
		at, steps = loading[at], steps + 1
		if at == module then
			error(`{module:GetFullName()} imports itself, through {steps} modules`, 2)
		end
	end
	if not _G[module] then
		-- A package finds what runs it by itself.
		_G[module] = TS
	end
	local exports = require(module)
	if loading[context] == module then
		loading[context] = nil
	end
	return exports
end

function TS.async(callback)
	return function(...)
		local args, count = { ... }, select("#", ...)
		return Promise.new(function(resolve, reject)
			coroutine.wrap(function()
				local ok, result = pcall(callback, unpack(args, 1, count))
				if ok then
					resolve(result)
				else
					reject(result)
				end
			end)()
		end)
	end
end

function TS.await(promise)
	if not Promise.is(promise) then
		return promise
	end
	local ok, value = promise:awaitStatus()
	if ok then
		return value
	end
	error(value, 2)
end

TS.TRY_RETURN = newproxy()

function TS.try(try, catch, finally)
	local exit, values = nil, nil
	local ok, problem = xpcall(function()
		exit, values = try()
	end, function(problem)
		return problem
	end)
	if not ok and catch then
		exit, values = catch(problem)
	end
	if finally then
		finally()
	end
	return exit, values
end

return TS
