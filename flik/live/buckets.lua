-- The tenants' buckets: one call of a region's limiter, for many tenants. flik/domain/rate.py says why it is exact.
--
-- KEYS[1]   flik:rate:epoch            hash: id, run, seen, last, quiet, base, settles, void, early; at:{region}, ok:{region}
-- KEYS[2]   flik:rate:holder:{holder}  hash: number, at                         expires after 60 s
-- KEYS[3..] flik:rate:bucket:{tenant}  hash: tokens, at, rate, epoch; out:{holder} = amount and end
--                                      expires when the bucket is full and nothing of it is held
--
-- id      of the epoch, a number; the next one of the same data is one larger, after a loss it is microseconds of now
-- run     which server this is; another one may know less
-- seen    the latest time there was
-- last    the latest call whose answer was heard
-- quiet   what `last` was before the silence that began the epoch; nothing comes in between it and `settles`
-- base    a bucket that is not there was empty at this time
-- settles from when on there are tokens
-- void    from when on nothing is left of what regions lent by their shares
-- early   1: settles as soon as every region has said that it did not admit by its share
-- at, ok  a region's latest call, and the epoch in which it has said that
--
-- ARGV: now ('': the server's clock), run, region, holder, number, heard, epoch, local (0 or 1),
--       seconds that tokens stay counted, SILENT_S, QUIET_S, GRACE_S;
--       then for each tenant: rate, burst, held, returned, want, unit
-- Returns {epoch, seconds until it settles, then kept, granted, left for each tenant}; {} for a call that came too late.

local FORGOTTEN_S = 60  -- a region that was not heard of for so long is not waited for
local LOST = 'lost'     -- holds what may have been lent by the regions' shares

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local run, region, holder = ARGV[2], ARGV[3], ARGV[4]
local number, heard, confirmed, is_local = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local counted_s, silent_s = tonumber(ARGV[9]), tonumber(ARGV[10])
local quiet_s, grace_s = tonumber(ARGV[11]), tonumber(ARGV[12])

local function text(value)
  return string.format('%.17g', value)
end

local function read(key)
  local flat, map = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

local function numbers(map, ...)
  local found = {}
  for _, name in ipairs({...}) do found[name] = tonumber(map[name]) end
  return found
end

local function begin_lost()
  redis.call('DEL', KEYS[1])
  return {
    id = math.floor(now * 1e6), seen = now, last = now, quiet = now, base = now,
    settles = now + grace_s, void = now + grace_s, early = 0
  }
end

local function begin_silent(before)
  return {
    id = before.id + 1, seen = now, last = before.last, quiet = before.last, base = before.settles,
    settles = now + grace_s, void = now + grace_s, early = 1
  }
end

local function all_confirmed(id)
  local stored = read(KEYS[1])
  for name, at in pairs(stored) do
    local other = string.match(name, '^at:(.*)$')
    if other and now - tonumber(at) > FORGOTTEN_S then
      redis.call('HDEL', KEYS[1], name, 'ok:' .. other)
    elseif other and tonumber(stored['ok:' .. other]) ~= id then
      return false
    end
  end
  return true
end

local function epoch_of(stored, heard_at)
  local epoch = numbers(stored, 'id', 'seen', 'last', 'quiet', 'base', 'settles', 'void', 'early')
  if not epoch.id or stored.run ~= run or now < epoch.seen - 1 then return begin_lost() end
  now = math.max(now, epoch.seen)
  epoch.seen = now
  epoch.last = math.max(epoch.last, heard_at)
  if now - epoch.last > silent_s then
    if now >= epoch.settles then return begin_silent(epoch) end
    epoch.settles, epoch.void = now + grace_s, now + grace_s  -- it may be that nobody has heard of this epoch yet
  end
  return epoch
end

local function keep_epoch(epoch)
  local ok = (not is_local and confirmed == epoch.id) and epoch.id or 0
  redis.call('HSET', KEYS[1], 'at:' .. region, text(now), 'ok:' .. region, text(ok))
  if epoch.early == 1 and now < epoch.settles and ok ~= 0 and all_confirmed(epoch.id) then epoch.settles = now end
  local fields = {'run', run}
  for name, value in pairs(epoch) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(value)
  end
  redis.call('HSET', KEYS[1], unpack(fields))
end

-- What comes in until `to`, with all that is held counted until it ends.
local function fill(bucket, to)
  while bucket.at < to do
    local step, out = to, 0
    for _, held in pairs(bucket.outs) do
      if held.ends > bucket.at then
        out = out + held.amount
        step = math.min(step, held.ends)
      end
    end
    bucket.tokens = math.max(0, math.min(bucket.tokens + bucket.rate * (step - bucket.at), bucket.burst - out))
    bucket.at = step
  end
end

local function enter(bucket, known_epoch, epoch)
  if epoch.early == 0 then bucket.outs = {} end
  if epoch.early == 0 or known_epoch ~= epoch.id - 1 then
    bucket.tokens, bucket.at = 0, epoch.base
  end
  fill(bucket, epoch.quiet)
  local shares = math.min(bucket.burst, bucket.rate * math.max(0, epoch.settles - epoch.quiet - quiet_s))
  bucket.tokens = math.min(bucket.tokens, bucket.burst - shares)
  bucket.at = epoch.settles
  if shares > 0 and epoch.void > epoch.settles then bucket.outs[LOST] = {amount = shares, ends = epoch.void} end
end

local function open(key, rate, burst, epoch)
  local stored = read(key)
  local bucket = {
    tokens = tonumber(stored.tokens) or 0, at = tonumber(stored.at) or 0, rate = tonumber(stored.rate) or rate,
    burst = burst, outs = {}
  }
  for name, value in pairs(stored) do
    local who = string.match(name, '^out:(.*)$')
    if who then
      local amount, ends = string.match(value, '^(%S+) (%S+)$')
      bucket.outs[who] = {amount = tonumber(amount), ends = tonumber(ends)}
    end
  end
  if tonumber(stored.epoch) ~= epoch.id then enter(bucket, tonumber(stored.epoch), epoch) end
  fill(bucket, now)
  bucket.rate = rate
  return bucket
end

local function lend(bucket, held, returned, want, unit)
  local mine, others = 0, 0
  for who, out in pairs(bucket.outs) do
    if out.ends <= now then
      bucket.outs[who] = nil
    elseif who == holder then
      mine = out.amount
    else
      others = others + out.amount
    end
  end
  local room = math.max(0, bucket.burst - others)
  local kept = math.min(held, mine, room)
  local tokens = bucket.tokens + math.min(returned, math.max(0, mine - held))
  tokens = math.max(0, math.min(tokens, room - kept))
  local granted = 0
  if want > 0 and tokens >= unit then granted = math.floor(math.min(want, tokens)) end
  bucket.tokens = tokens - granted
  bucket.outs[holder] = kept + granted > 0 and {amount = kept + granted, ends = now + counted_s} or nil
  return kept, granted
end

local function close(key, bucket, epoch)
  local fields = {
    'tokens', text(bucket.tokens), 'at', text(now), 'rate', text(bucket.rate), 'epoch', text(epoch.id)
  }
  for who, out in pairs(bucket.outs) do
    fields[#fields + 1] = 'out:' .. who
    fields[#fields + 1] = text(out.amount) .. ' ' .. text(out.ends)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  local full_s = bucket.rate > 0 and bucket.burst / bucket.rate or 0
  redis.call('PEXPIRE', key, string.format('%.0f', math.min(1e15, math.ceil((full_s + counted_s) * 1000))))
end

local known = numbers(read(KEYS[2]), 'number', 'at')
if known.number and number <= known.number then return {} end
local epoch = epoch_of(read(KEYS[1]), known.number == heard and known.at or 0)
keep_epoch(epoch)
redis.call('HSET', KEYS[2], 'number', text(number), 'at', text(now))
redis.call('PEXPIRE', KEYS[2], FORGOTTEN_S * 1000)

local answer = {text(epoch.id), text(epoch.settles - now)}
if now < epoch.settles then return answer end
for i = 3, #KEYS do
  local a = 12 + (i - 3) * 6
  local bucket = open(KEYS[i], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), epoch)
  local kept, granted = lend(
    bucket, tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
  )
  close(KEYS[i], bucket, epoch)
  answer[#answer + 1] = text(kept)
  answer[#answer + 1] = text(granted)
  answer[#answer + 1] = text(bucket.tokens)
end
return answer
