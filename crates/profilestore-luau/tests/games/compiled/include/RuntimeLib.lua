-- What compiled scripts are run with: imports by path, which load each module once.
local TS = {}

function TS.getModule(object, scope, name)
	return object:WaitForChild("node_modules"):WaitForChild(scope):WaitForChild(name)
end

function TS.import(caller, module, ...)
	for _, name in { ... } do
		module = module:WaitForChild(name)
	end
	if module.ClassName ~= "ModuleScript" then
		error(`{caller:GetFullName()} imports {module:GetFullName()}, which is no module`, 2)
	end
	return require(module)
end

return TS
