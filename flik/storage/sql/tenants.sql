-- Tenants and their limits. What changes one writes its row of the audit log in the same statement.

-- name: create_tenant
-- (nothing) -> a tenant; no row comes back when there is one of this id.
WITH made AS (
    INSERT INTO tenants (tenant_id, name, created_at, updated_at, rate_per_s, burst, max_running, max_queued, weight,
                         highest_priority, max_payload_bytes)
    VALUES (%(tenant_id)s, %(name)s, to_timestamp(%(now)s), to_timestamp(%(now)s), %(rate_per_s)s::float8,
            %(burst)s::int, %(max_running)s::int, %(max_queued)s::int, %(weight)s::int,
            %(highest_priority)s::smallint, %(max_payload_bytes)s::int)
    ON CONFLICT (tenant_id) DO NOTHING
    RETURNING tenants.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'tenant.created', made.tenant_id,
           %(detail)s::jsonb, %(request_id)s::text
    FROM made
)
SELECT tenant_id, name, extract(epoch FROM created_at)::float8, extract(epoch FROM updated_at)::float8,
       rate_per_s, burst, max_running, max_queued, weight, highest_priority, max_payload_bytes
FROM made

-- name: change_tenant
-- Only what %(given)s names is changed, to NULL as well; no row comes back when there is no such tenant.
WITH changed AS (
    UPDATE tenants SET
        updated_at = to_timestamp(%(now)s),
        name = CASE WHEN 'name' = ANY(%(given)s::text[]) THEN %(name)s ELSE name END,
        rate_per_s = CASE WHEN 'rate_per_s' = ANY(%(given)s::text[]) THEN %(rate_per_s)s::float8 ELSE rate_per_s END,
        burst = CASE WHEN 'burst' = ANY(%(given)s::text[]) THEN %(burst)s::int ELSE burst END,
        max_running = CASE WHEN 'max_running' = ANY(%(given)s::text[])
                           THEN %(max_running)s::int ELSE max_running END,
        max_queued = CASE WHEN 'max_queued' = ANY(%(given)s::text[]) THEN %(max_queued)s::int ELSE max_queued END,
        weight = CASE WHEN 'weight' = ANY(%(given)s::text[]) THEN %(weight)s::int ELSE weight END,
        highest_priority = CASE WHEN 'highest_priority' = ANY(%(given)s::text[])
                                THEN %(highest_priority)s::smallint ELSE highest_priority END,
        max_payload_bytes = CASE WHEN 'max_payload_bytes' = ANY(%(given)s::text[])
                                 THEN %(max_payload_bytes)s::int ELSE max_payload_bytes END
    WHERE tenant_id = %(tenant_id)s
    RETURNING tenants.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'tenant.changed', changed.tenant_id,
           %(detail)s::jsonb, %(request_id)s::text
    FROM changed
)
SELECT tenant_id, name, extract(epoch FROM created_at)::float8, extract(epoch FROM updated_at)::float8,
       rate_per_s, burst, max_running, max_queued, weight, highest_priority, max_payload_bytes
FROM changed

-- name: find_tenants
SELECT tenant_id, name, extract(epoch FROM created_at)::float8, extract(epoch FROM updated_at)::float8,
       rate_per_s, burst, max_running, max_queued, weight, highest_priority, max_payload_bytes
FROM tenants
WHERE tenant_id = ANY(%(tenant_ids)s::text[])

-- name: list_tenants
-- In the order of their ids, byte by byte, whatever the database's collation is.
SELECT tenant_id, name, extract(epoch FROM created_at)::float8, extract(epoch FROM updated_at)::float8,
       rate_per_s, burst, max_running, max_queued, weight, highest_priority, max_payload_bytes
FROM tenants
WHERE tenant_id COLLATE "C" > %(after)s
ORDER BY tenant_id COLLATE "C"
LIMIT %(limit)s

-- name: work_limits
-- What the queue needs of tenants; most have neither.
SELECT tenant_id, weight, max_running FROM tenants WHERE weight IS NOT NULL OR max_running IS NOT NULL
