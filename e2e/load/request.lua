-- One request, sent again and again by wrk; at the end one line of JSON. What it is comes from the environment.
wrk.method = os.getenv("LOAD_METHOD") or "GET"

-- In turns as different people, because what one may ask is limited.
local made, turn = {}, 0
function init()
  -- Who has a body to send says in it who they are.
  local bodies = os.getenv("LOAD_BODIES") or ""
  for body in bodies:gmatch("[^\n]+") do
    wrk.headers["Content-Type"] = "application/json"
    made[#made + 1] = wrk.format(nil, nil, nil, body)
  end
  local tokens = bodies == "" and os.getenv("LOAD_TOKENS") or ""
  for token in tokens:gmatch("[^,]+") do
    wrk.headers["Authorization"] = "Bearer " .. token
    made[#made + 1] = wrk.format()
  end
  if #made == 0 then made[1] = wrk.format() end
end
function request()
  turn = turn % #made + 1
  return made[turn]
end

-- A pause before each request, uniform around its mean: many people, each of whom waits, instead of as much as comes through.
local pause = tonumber(os.getenv("LOAD_PAUSE_MS") or "0")
if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end

-- By status, where requests are rare enough that counting them in Lua does not matter.
local threads = {}
refusals = {}
function setup(thread) threads[#threads + 1] = thread end
if (os.getenv("LOAD_BODIES") or "") ~= "" then
  function response(status)
    if status > 399 then
      local name = tostring(status)
      refusals[name] = (refusals[name] or 0) + 1
    end
  end
end

function done(summary, latency, requests)
  local errors, statuses = summary.errors, {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("refusals")) do
      statuses[#statuses + 1] = string.format('"%s":%d', status, count)
    end
  end
  io.write(string.format(
    '\n{"requests":%d,"micros":%d,"p99":%d,"longest":%d,"refused":%d,"broken":%d,"statuses":{%s}}\n',
    summary.requests, summary.duration, latency:percentile(99), latency.max, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(statuses, ",")))
end
