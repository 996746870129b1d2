-- One write to the stream of a task's text. Chunk n is the entry n+1-0, so the number of the last entry is how many
-- there are, and a number cannot be given twice.
--
-- KEYS[1]  flik:chunks:{taskId}   stream; fields attempt, run, worker, version, kind, text, at
-- KEYS[2]  stream:{tenant}:{feature}:{chat}   stream; field data: the same for people and tools that know the earlier
--          streaming system. Only with chats; nothing reads it here.
-- ARGV     attempt, run, first, mode (begin, go_on, anew), ttl_s, channel, message for it,
--          then for each chunk: kind, text, worker, version, at, data
--
-- Answers, as flik/domain/chunk.py has them:
--   {"WRITTEN", count}   they stand there now, or have since an earlier try of this write
--   {"REFUSED"}          a later attempt has written
--   {"MISSING"}          there is no stream, and this write does not begin one
--   {"TAKEN", attempt, entries}   the stream ends elsewhere than before `first`; nothing was changed
local attempt, run, first, mode = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local count = 0
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
    count = tonumber(string.match(last[1], '^%d+'))
    local fields = {}
    for i = 1, #last[2], 2 do fields[last[2][i]] = last[2][i + 1] end
    local writer = tonumber(fields.attempt)
    if writer > attempt then return {'REFUSED'} end
    if fields.run == run then
        if first < count then return {'WRITTEN', count} end
    elseif mode == 'anew' and writer < attempt then
        redis.call('DEL', KEYS[1])
        count = 0
    elseif mode ~= 'begin' or first ~= count then
        return {'TAKEN', writer, redis.call('XRANGE', KEYS[1], '-', '+')}
    end
end
if first ~= count then return {'MISSING'} end
if first == 0 and KEYS[2] then redis.call('DEL', KEYS[2]) end
for i = 8, #ARGV, 6 do
    count = count + 1
    redis.call('XADD', KEYS[1], count .. '-0', 'attempt', attempt, 'run', run, 'kind', ARGV[i], 'text', ARGV[i + 1],
               'worker', ARGV[i + 2], 'version', ARGV[i + 3], 'at', ARGV[i + 4])
    if KEYS[2] then
        if ARGV[i] == 'restart' then
            redis.call('DEL', KEYS[2])
        else
            redis.call('XADD', KEYS[2], '*', 'data', ARGV[i + 5])
        end
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
if KEYS[2] then redis.call('EXPIRE', KEYS[2], ARGV[5]) end
redis.call('PUBLISH', ARGV[6], ARGV[7])
return {'WRITTEN', count}
