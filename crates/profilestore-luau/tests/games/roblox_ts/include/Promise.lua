-- Promises, as far as compiled scripts need them.
local Promise = {}
Promise.__index = Promise

local function settle(promise, ok, ...)
	if promise.settled then
		return
	end
	promise.settled, promise.ok, promise.values = true, ok, table.pack(...)
	for _, waiter in promise.waiters do
		task.spawn(waiter)
	end
	promise.waiters = {}
end

function Promise.is(value)
	return type(value) == "table" and getmetatable(value) == Promise
end

function Promise.new(executor)
	local promise = setmetatable({ waiters = {} }, Promise)
	local function resolve(first, ...)
		if Promise.is(first) then
			first:finallyCall(function()
				settle(promise, first.ok, unpack(first.values, 1, first.values.n))
			end)
		else
			settle(promise, true, first, ...)
		end
	end
	local function reject(...)
		settle(promise, false, ...)
	end
	coroutine.wrap(function()
		local ok, problem = pcall(executor, resolve, reject)
		if not ok then
			reject(problem)
		end
	end)()
	return promise
end

Promise.defer = function(executor)
	return Promise.new(function(resolve, reject)
		task.defer(executor, resolve, reject)
	end)
end

function Promise:finallyCall(waiter)
	if self.settled then
		task.spawn(waiter)
	else
		table.insert(self.waiters, waiter)
	end
end

function Promise:andThen(onResolved, onRejected)
	return Promise.new(function(resolve, reject)
		self:finallyCall(function()
			local handler = if self.ok then onResolved else onRejected
			if handler then
				resolve(handler(unpack(self.values, 1, self.values.n)))
			else
				(if self.ok then resolve else reject)(unpack(self.values, 1, self.values.n))
			end
		end)
	end)
end

function Promise:catch(onRejected)
	return self:andThen(nil, onRejected)
end

function Promise:awaitStatus()
	if not self.settled then
		local thread = coroutine.running()
		self:finallyCall(function()
			task.spawn(thread)
		end)
		coroutine.yield()
	end
	return self.ok, unpack(self.values, 1, self.values.n)
end

return Promise
