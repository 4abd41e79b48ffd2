-- One transaction of the store. Whatever may fail (looking, comparing, reading numbers) comes before the
-- first write, because a script that stops half way is not rolled back.
--
-- KEYS     every key that is looked at or written.
-- ARGV[1]  JSON: {kinds = what each key must hold, checks = [...], writes = [...]}. A check or write is
--          [name, key index, argument...]; an argument that is a number is the index of a text in ARGV,
--          so that long or binary ones stay out of the JSON and are sent once.
--
-- Returns {"ok", id of the last entry that was appended or ""}, {"refused", index of the first check that failed}, or {"corrupt", key index, found}.

local NUMBER_DIGITS_MAX = 15 -- so that sums stay exact in doubles
local STAMP_DIGITS_MAX = 15  -- milliseconds in a stream's id; beyond, somebody else made that entry
local LEVEL_TIME = 'at:'

local plan = cjson.decode(ARGV[1])

local function text(argument)
  if type(argument) == 'number' then return ARGV[argument] end
  return argument
end

local function is_integer(value)
  local digits = string.match(value, '^-?([1-9]%d*)$')
  return value == '0' or digits and #digits <= NUMBER_DIGITS_MAX
end

local function last_id(key)
  local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1] or '0-0'
end

-- ------------------------------------------------------------------------------------ what the keys hold

local exists = {}

for index, kind in ipairs(plan.kinds) do
  local found = redis.call('TYPE', KEYS[index]).ok
  exists[KEYS[index]] = found ~= 'none'
  if found ~= 'none' and found ~= kind then
    return {'corrupt', index, 'a ' .. found .. ' instead of a ' .. kind}
  end
end

-- The number in a hash's field (none: 0), or nil and what was found instead.
local function number_in(key, field)
  local value = redis.call('HGET', key, field)
  if not value then return 0 end
  if not is_integer(value) then return nil, 'no number in ' .. field .. ': ' .. string.sub(value, 1, 40) end
  return tonumber(value)
end

-- The last entry of each stream that is appended to.
local newest = {}

local number_wanted = {['add'] = true, ['raise'] = true, ['at-most'] = true}
for _, steps in ipairs({plan.checks, plan.writes}) do
  for _, step in ipairs(steps) do
    if number_wanted[step[1]] then
      local number, found = number_in(KEYS[step[2]], text(step[3]))
      if not number then return {'corrupt', step[2], found} end
    elseif step[1] == 'append' and not newest[KEYS[step[2]]] then
      local id = last_id(KEYS[step[2]])
      if #string.match(id, '^%d+') > STAMP_DIGITS_MAX then
        return {'corrupt', step[2], 'an entry from the far future: ' .. id}
      end
      newest[KEYS[step[2]]] = id
    end
  end
end

-- ----------------------------------------------------------------------------------------------- checks

local passes = {
  ['field-is'] = function(key, field, value) return redis.call('HGET', key, text(field)) == text(value) end,
  ['absent'] = function(key) return not exists[key] end,
  ['size-is'] = function(key, size) return redis.call('ZCARD', key) == tonumber(size) end,
  ['room-for'] = function(key, limit) return redis.call('ZCARD', key) < tonumber(limit) end,
  ['score-is'] = function(key, member, score)
    local found = redis.call('ZSCORE', key, text(member))
    return found and tonumber(found) == tonumber(score)
  end,
  ['at-most'] = function(key, field, delta, maximum)
    return number_in(key, text(field)) + tonumber(delta) <= tonumber(maximum)
  end,
  ['ends-at'] = function(key, id) return last_id(key) == id end,
  ['text-is'] = function(key, value, or_absent)
    local found = redis.call('GET', key)
    if not found then return or_absent == '1' end
    return found == text(value)
  end,
}

for index, check in ipairs(plan.checks) do
  if not passes[check[1]](KEYS[check[2]], unpack(check, 3)) then return {'refused', index} end
end

-- ----------------------------------------------------------------------------------------------- writes

-- The texts of a step from its argument *first* on, at most so many that Lua can hand them over.
local TEXTS_MAX = 1000
local function texts(step, first)
  local result = {}
  for index = first, math.min(#step, first + TEXTS_MAX - 1) do result[#result + 1] = text(step[index]) end
  return result
end

local trimmed = {}
local appended = ''

-- Each gets its key and the whole step; the arguments begin at step[3].
local write = {
  ['set'] = function(key, step)
    for first = 3, #step, TEXTS_MAX do redis.call('HSET', key, unpack(texts(step, first))) end
  end,
  ['set-new'] = function(key, step) redis.call('HSETNX', key, text(step[3]), text(step[4])) end,
  ['add'] = function(key, step) redis.call('HINCRBY', key, text(step[3]), step[4]) end,
  -- After the level come pairs of level and time, lowest first.
  ['raise'] = function(key, step)
    local now = tonumber(redis.call('HGET', key, text(step[3])) or '-1')
    if now >= tonumber(step[4]) then return end
    redis.call('HSET', key, text(step[3]), step[4])
    for index = 5, #step, 2 do
      if tonumber(step[index]) > now then redis.call('HSETNX', key, LEVEL_TIME .. step[index], step[index + 1]) end
    end
  end,
  ['put-member'] = function(key, step) redis.call('ZADD', key, step[4], text(step[3])) end,
  ['drop-member'] = function(key, step) redis.call('ZREM', key, text(step[3])) end,
  ['drop-member-if'] = function(key, step)
    local found = redis.call('ZSCORE', key, text(step[3]))
    if found and tonumber(found) == tonumber(step[4]) then redis.call('ZREM', key, text(step[3])) end
  end,
  -- The index of the key that must be empty is a text, because a number would mean one in ARGV.
  ['put-member-if-empty'] = function(key, step)
    if redis.call('ZCARD', KEYS[tonumber(step[3])]) == 0 then redis.call('ZADD', key, step[5], text(step[4])) end
  end,
  ['append'] = function(key, step)
    local previous = newest[key]
    if trimmed[key] then
      newest[key] = redis.call('XADD', key, '*', 'p', previous, unpack(texts(step, 4)))
      appended = newest[key]
      return
    end
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local oldest = string.format('%.0f', math.max(0, now - step[3]))
    newest[key] = redis.call('XADD', key, 'MINID', '~', oldest, '*', 'p', previous, unpack(texts(step, 4)))
    trimmed[key] = true
    appended = newest[key]
  end,
  ['put-entry'] = function(key, step)
    redis.call('XADD', key, 'MINID', '=', step[4], step[3], unpack(texts(step, 6)))
    redis.call('XTRIM', key, 'MAXLEN', '=', step[5])
  end,
  ['set-text'] = function(key, step)
    if step[4] then
      redis.call('SET', key, text(step[3]), 'PX', step[4])
    else
      redis.call('SET', key, text(step[3]))
    end
  end,
  ['expire'] = function(key, step)
    if step[4] == '0' or redis.call('PTTL', key) == -1 then redis.call('PEXPIRE', key, step[3]) end
  end,
  ['delete'] = function(key) redis.call('DEL', key) end,
}

for _, step in ipairs(plan.writes) do
  write[step[1]](KEYS[step[2]], step)
end

return {'ok', appended}
