-- How healthy a TankaPlatform is, for Argo CD: without it every object that exists counts as healthy, and a sync wave would not wait.
-- It reads conditions only. `Ready` means that a write, a replica's read, Redis and the API work now, so a platform that works while a
-- replica catches up is healthy; one that cannot go on without a person is degraded.
local health = {status = "Progressing", message = "the operator has not looked at it yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if obj.metadata.generation ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not looked at the latest change yet"
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
if found.Ready == nil then
  return health
end
health.message = found.Ready.message
if found.Stalled ~= nil and found.Stalled.status == "True" then
  health.status = "Degraded"
  health.message = found.Stalled.message
elseif obj.spec ~= nil and obj.spec.paused then
  health.status = "Suspended"
elseif found.Ready.status == "True" then
  health.status = "Healthy"
elseif found.Reconciling == nil or found.Reconciling.status ~= "True" then
  health.status = "Degraded"
end
return health
