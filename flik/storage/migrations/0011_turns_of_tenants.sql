-- flik: no transaction
-- Which tenants have a webhook that is due, and which of each is first: couriers go by tenant, so that one that has
-- thousands of receivers keeps nobody waiting (flik/storage/sql/deliveries.sql). With an index by time alone beside it
-- PostgreSQL would look for one tenant's webhooks among those of all. Couriers of the version before claim without it,
-- only slower.
DROP INDEX CONCURRENTLY IF EXISTS webhooks_turns;
CREATE INDEX CONCURRENTLY webhooks_turns ON webhooks (tenant_id, due_at) WHERE status = 'ACTIVE' AND due_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS webhooks_due;
