-- API keys. What makes or revokes one writes its row of the audit log in the same statement.

-- name: create_key
-- (nothing) -> a key; no row comes back when there is no such tenant.
WITH made AS (
    INSERT INTO api_keys (key_id, tenant_id, digest, prefix, name, scopes, created_at, expires_at)
    SELECT %(key_id)s::uuid, tenants.tenant_id, %(digest)s, %(prefix)s, %(name)s, %(scopes)s::key_scope[],
           to_timestamp(%(now)s), to_timestamp(%(expires_at)s::float8)
    FROM tenants
    WHERE tenants.tenant_id = %(tenant_id)s
    RETURNING api_keys.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'key.created', made.key_id::text,
           %(detail)s::jsonb, %(request_id)s::text
    FROM made
)
SELECT key_id::text, tenant_id, prefix, name, scopes::text[], extract(epoch FROM created_at)::float8,
       extract(epoch FROM expires_at)::float8, extract(epoch FROM revoked_at)::float8,
       extract(epoch FROM last_used_at)::float8
FROM made

-- name: revoke_key
-- A key that works -> a key that never works again; one that is revoked already stays as it is, unnoted.
WITH revoked AS (
    UPDATE api_keys SET revoked_at = to_timestamp(%(now)s)
    WHERE key_id = %(key_id)s::uuid AND revoked_at IS NULL
    RETURNING api_keys.*
)
INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'key.revoked', revoked.key_id::text,
       jsonb_build_object('tenantId', revoked.tenant_id, 'name', revoked.name, 'prefix', revoked.prefix),
       %(request_id)s::text
FROM revoked

-- name: get_key
SELECT key_id::text, tenant_id, prefix, name, scopes::text[], extract(epoch FROM created_at)::float8,
       extract(epoch FROM expires_at)::float8, extract(epoch FROM revoked_at)::float8,
       extract(epoch FROM last_used_at)::float8
FROM api_keys
WHERE key_id = %(key_id)s::uuid

-- name: find_keys
SELECT digest, key_id::text, tenant_id, prefix, name, scopes::text[], extract(epoch FROM created_at)::float8,
       extract(epoch FROM expires_at)::float8, extract(epoch FROM revoked_at)::float8,
       extract(epoch FROM last_used_at)::float8
FROM api_keys
WHERE digest = ANY(%(digests)s)

-- name: working_keys
SELECT key_id::text FROM api_keys
WHERE key_id = ANY(%(key_ids)s::uuid[]) AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > to_timestamp(%(now)s))

-- name: list_keys
-- Newest first.
SELECT key_id::text, tenant_id, prefix, name, scopes::text[], extract(epoch FROM created_at)::float8,
       extract(epoch FROM expires_at)::float8, extract(epoch FROM revoked_at)::float8,
       extract(epoch FROM last_used_at)::float8
FROM api_keys
WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(before_id)s::uuid IS NULL OR api_keys.key_id < %(before_id)s::uuid)
ORDER BY api_keys.key_id DESC
LIMIT %(limit)s

-- name: touch_keys
-- Every gateway tells of what it saw; the first one in a minute writes.
UPDATE api_keys SET last_used_at = to_timestamp(%(now)s)
WHERE key_id = ANY(%(key_ids)s::uuid[])
  AND (last_used_at IS NULL OR last_used_at <= to_timestamp(%(now)s) - make_interval(secs => %(at_least_s)s))

-- name: lock_bootstrap
-- Two starts on one database make the demo tenant and its key one after the other.
SELECT pg_advisory_xact_lock(1718380907)
