//! The scripts that the store runs (Lua 5.1, as in Redis and Valkey).
//!
//! A script uses only the keys that it is given, and tolerates any content of these keys, because
//! others may write to the store, too. It removes a key of another type, and no number that it finds
//! makes it fail: otherwise one such key would stop the counts of everybody.

/// Reads a hash. A key of another type is removed first.
macro_rules! with_read {
    ($script:literal) => {
        concat!(
            "
local function read(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if type(found) ~= 'table' or not found.err then return found end
  if string.find(found.err, 'WRONGTYPE', 1, true) then redis.call('DEL', key) end
  return redis.call(command, key, ...)
end
local function whole(text) return text and #text <= 12 and string.find(text, '^%d+$') and tonumber(text) or nil end",
            $script
        )
    };
}

/// Counts one message or recipient in intervals of five minutes: the current interval and the twelve
/// before it (see `submit::usage`). Arguments: the limit, and 1 to count or 0 to look only. Returns
/// whether the limit allowed one more, and the count.
pub const COUNT: &str = with_read!(
    "
local slot = math.floor(tonumber(redis.call('TIME')[1]) / 300)
local sum, old = 0, {}
local all = read('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, n = whole(all[i]), whole(all[i + 1])
  if at and n and tostring(n) == all[i + 1] and at <= slot and at > slot - 13 then sum = sum + n else old[#old + 1] = all[i] end
end
if sum >= tonumber(ARGV[1]) or ARGV[2] ~= '1' then return {0, sum} end
for i = 1, #old do redis.call('HDEL', KEYS[1], old[i]) end
redis.call('HINCRBY', KEYS[1], slot, 1)
redis.call('EXPIRE', KEYS[1], 3900)
return {1, sum + 1}"
);

/// Counts failed logins, of which one expires every minute (see `sasl::throttle`). Keys: the client,
/// the account, and both. Arguments: the step, and the maximum counts of the client and the account;
/// 0 stands for one that is not counted. Returns both counts, and whether the client has
/// authenticated to the account.
pub const LOGIN: &str = with_read!(
    "
local now = tonumber(redis.call('TIME')[1])
local counts = {0, 0, 0}
for i = 1, 2 do
  local have = read('HMGET', KEYS[i], 'count', 'since')
  local count, since, max = whole(have[1]) or 0, whole(have[2]) or now, tonumber(ARGV[i + 1])
  if since > now then since = now end
  local gone = math.floor((now - since) / 60)
  if gone >= count then count, since = 0, now else count, since = count - gone, since + 60 * gone end
  if ARGV[1] == 'failed' and max > 0 then
    count = math.min(count + 1, max)
    redis.call('HSET', KEYS[i], 'count', count, 'since', since)
    redis.call('EXPIRE', KEYS[i], 60 * count + 60)
  end
  if max > 0 then counts[i] = math.min(count, max) end
end
if ARGV[1] == 'succeeded' then redis.call('SET', KEYS[3], 1, 'EX', 3024000) end
counts[3] = redis.call('EXISTS', KEYS[3])
return counts"
);

/// Keeps the greylist (see `screen::greylist`). Keys: the mark of a network that has passed, and the
/// pairs of the network, each with the time of its first attempt. Arguments: the step, the pair, the
/// delay, the time after which a pair is forgotten, the time after which the mark is forgotten, and
/// the maximum number of pairs. Returns whether the network has passed, and the seconds until then.
pub const GREYLIST: &str = with_read!(
    "
local step, pair, delay = ARGV[1], ARGV[2], tonumber(ARGV[3])
local tried, passed, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
local function pass()
  redis.call('SET', KEYS[1], 1, 'EX', passed)
  redis.call('DEL', KEYS[2])
  return {1, 0}
end
if step == 'passed' then return pass() end
if redis.call('EXISTS', KEYS[1]) == 1 then
  if step == 'try' then redis.call('EXPIRE', KEYS[1], passed) end
  return {1, 0}
end
local function is_valid(first) return first and first <= now and first + tried > now end
local first = whole(read('HGET', KEYS[2], pair))
if is_valid(first) then
  if first + delay > now then return {0, first + delay - now} end
  if step == 'try' then return pass() end
  return {1, 0}
end
if step ~= 'try' then return {0, delay} end
redis.call('HDEL', KEYS[2], pair)
if redis.call('HLEN', KEYS[2]) >= most then
  local all = redis.call('HGETALL', KEYS[2])
  for i = 1, #all, 2 do
    if not is_valid(whole(all[i + 1])) then redis.call('HDEL', KEYS[2], all[i]) end
  end
end
if redis.call('HLEN', KEYS[2]) < most then
  redis.call('HSET', KEYS[2], pair, now)
  redis.call('EXPIRE', KEYS[2], tried)
end
return {0, delay}"
);

/// Keeps a text. Arguments: the text, and the seconds for which it is kept. Returns 1.
pub const KEEP: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {1}";

/// Returns the text that was kept, or an empty one. A text that no host has kept is removed: if it went
/// to a host, that host would take the store for one that lies.
pub const RECALL: &str = with_read!(
    "
local text = read('GET', KEYS[1])
if not text then return '' end
if #text <= 44000 and string.find(text, '^[A-Za-z0-9+/]*$') then return text end
redis.call('DEL', KEYS[1])
return ''"
);

/// Writes a number for a minute. Returns the number that was read back, and the time of the store.
pub const PROBE: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'EX', 60)
return {tonumber(redis.call('GET', KEYS[1])), tonumber(redis.call('TIME')[1])}";
