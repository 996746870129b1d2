-- The audit log is written by the statements of tenants.sql and keys.sql; here it is read.

-- name: list_audit
-- Newest first.
SELECT entry_id::text, extract(epoch FROM at)::float8, actor, action, subject, detail, request_id
FROM audit_log
WHERE %(before_id)s::uuid IS NULL OR audit_log.entry_id < %(before_id)s::uuid
ORDER BY audit_log.entry_id DESC
LIMIT %(limit)s
