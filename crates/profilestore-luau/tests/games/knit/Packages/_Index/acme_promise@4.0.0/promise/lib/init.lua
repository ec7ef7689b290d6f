-- Promises, as far as this game's framework needs them.
local Promise = { Status = { Started = "Started", Resolved = "Resolved", Rejected = "Rejected" } }
Promise.__index = Promise

local function settle(promise, status, ...)
	if promise._status ~= Promise.Status.Started then
		return
	end
	promise._status = status
	promise._values = table.pack(...)
	for _, waiter in promise._waiters do
		task.spawn(waiter)
	end
	table.clear(promise._waiters)
end

local function follow(promise, first, ...)
	if Promise.is(first) then
		first:finally(function(status)
			settle(promise, status, table.unpack(first._values, 1, first._values.n))
		end)
	else
		settle(promise, Promise.Status.Resolved, first, ...)
	end
end

function Promise.is(value)
	return type(value) == "table" and getmetatable(value) == Promise
end

function Promise.new(executor)
	local promise = setmetatable({ _status = Promise.Status.Started, _waiters = {} }, Promise)
	local function resolve(...)
		follow(promise, ...)
	end
	local function reject(...)
		settle(promise, Promise.Status.Rejected, ...)
	end
	task.spawn(function()
		local ok, problem = xpcall(executor, debug.traceback, resolve, reject)
		if not ok then
			reject(problem)
		end
	end)
	return promise
end

function Promise.resolve(...)
	local values = table.pack(...)
	return Promise.new(function(resolve)
		resolve(table.unpack(values, 1, values.n))
	end)
end

function Promise.reject(...)
	local values = table.pack(...)
	return Promise.new(function(_, reject)
		reject(table.unpack(values, 1, values.n))
	end)
end

function Promise.all(promises)
	return Promise.new(function(resolve, reject)
		local left, results = #promises, table.create(#promises)
		if left == 0 then
			resolve(results)
		end
		for n, promise in promises do
			promise:andThen(function(result)
				results[n] = result
				left -= 1
				if left == 0 then
					resolve(results)
				end
			end, reject)
		end
	end)
end

function Promise:getStatus()
	return self._status
end

function Promise:finally(listener)
	local function tell()
		listener(self._status)
	end
	if self._status == Promise.Status.Started then
		table.insert(self._waiters, tell)
	else
		task.spawn(tell)
	end
	return self
end

function Promise:andThen(onResolved, onRejected)
	return Promise.new(function(resolve, reject)
		self:finally(function(status)
			local values = self._values
			local resolved = status == Promise.Status.Resolved
			local handler = if resolved then onResolved else onRejected
			if handler then
				local given = table.pack(xpcall(handler, debug.traceback, table.unpack(values, 1, values.n)))
				local settled = if given[1] then resolve else reject
				settled(table.unpack(given, 2, given.n))
			else
				local settled = if resolved then resolve else reject
				settled(table.unpack(values, 1, values.n))
			end
		end)
	end)
end

function Promise:catch(onRejected)
	return self:andThen(nil, onRejected)
end

function Promise:await()
	if self._status == Promise.Status.Started then
		local thread = coroutine.running()
		table.insert(self._waiters, function()
			coroutine.resume(thread)
		end)
		coroutine.yield()
	end
	return self._status == Promise.Status.Resolved, table.unpack(self._values, 1, self._values.n)
end

function Promise:expect()
	local results = table.pack(self:await())
	assert(results[1], results[2])
	return table.unpack(results, 2, results.n)
end

return Promise
