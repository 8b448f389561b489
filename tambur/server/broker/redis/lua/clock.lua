-- Redis' clock: "time" is seconds and microseconds since 1970, "clock_ms" milliseconds.
local time = redis.call('TIME')
local clock_ms = time[1] * 1000 + math.floor(time[2] / 1000)
