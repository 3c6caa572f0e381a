-- Sends the requests of a list, whose lines are "path" or "path token", one after another or in random order:
-- wrk -s list.lua URL -- FILE sequence|random
local requests = {}
local ordered, at = true, 0

function init(arguments)
  ordered = arguments[2] == "sequence"
  for line in io.lines(arguments[1]) do
    local path, token = line:match("^(%S+) ?(%S*)$")
    local headers = token ~= "" and {Authorization = "Bearer " .. token} or nil
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
  math.randomseed(20261127)
end

function request()
  if ordered then
    at = at % #requests + 1
    return requests[at]
  end
  return requests[math.random(#requests)]
end
