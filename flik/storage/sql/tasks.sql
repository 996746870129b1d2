-- Tasks as submitters and readers see them. Times are seconds since the epoch on both sides. Batches arrive as one
-- JSON document: building ten arrays costs the sender five times as much (measured 2026-11). ORDER BY says
-- `tasks.task_id`: the bare name is the text that is returned, which no index is in the order of.

-- name: store_tasks
WITH {storing}
SELECT count(*) FROM stored

-- name: insert_tasks
-- (nothing) -> QUEUED. A row that is there already was committed by an earlier try of the same submission. Its source
-- is a parameter, or, inside sql/idempotency.sql, the submissions whose key is free. `store_own_webhooks` and
-- `tell_submitted` go with it (`storing` of flik/storage/tasks.py).
INSERT INTO tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts,
                   created_at, available_at, start_deadline_at, payload, request_id, trace_id, hook_kinds)
SELECT n.task_id, n.tenant_id, n.task_type, n.priority, n.region, 'QUEUED', %(max_attempts)s,
       to_timestamp(n.created_at), to_timestamp(n.created_at), to_timestamp(n.start_deadline_at),
       n.payload, n.request_id, n.trace_id, n.hook_kinds
FROM {source}
     AS n(task_id uuid, tenant_id text, task_type text, priority smallint, region text, payload jsonb,
          created_at float8, start_deadline_at float8, request_id text, trace_id text, hook_kinds text[])
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id, tenant_id, created_at, hook_kinds

-- name: store_own_webhooks
-- Those that the tasks which were `stored` bring with them.
INSERT INTO task_webhooks (task_id, receiver_id, url, secret)
SELECT o.task_id, o.receiver_id, o.url, o.secret
FROM json_to_recordset(%(own_webhooks)s::json) AS o(task_id uuid, receiver_id uuid, url text, secret text)
JOIN stored s ON s.task_id = o.task_id

-- name: tell_submitted
-- What is to be heard of what was `stored`: by tenants with webhooks, and by tasks' own webhooks.
INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
SELECT s.task_id, 1, s.tenant_id, 'queued', s.created_at, '{"status": "QUEUED"}'
FROM stored s
WHERE EXISTS (SELECT FROM webhooks w
              WHERE w.tenant_id = s.tenant_id AND w.place > 0 AND w.status <> 'DISABLED' AND 'queued' = ANY(w.kinds))
   OR 'queued' = ANY(s.hook_kinds)

-- name: get_task
SELECT task_id::text, tenant_id, task_type, priority, region, status::text, attempt, max_attempts,
       extract(epoch FROM created_at)::float8, extract(epoch FROM available_at)::float8,
       extract(epoch FROM start_deadline_at)::float8, extract(epoch FROM started_at)::float8,
       extract(epoch FROM completed_at)::float8, worker_id, version, error_code, error_message, request_id, result
FROM tasks
WHERE task_id = %(task_id)s::uuid

-- name: list_tasks
-- Newest first. UUIDv7 carries the time of submission, so a range of time is a range of ids.
SELECT task_id::text, tenant_id, task_type, priority, region, status::text, attempt, max_attempts,
       extract(epoch FROM created_at)::float8, extract(epoch FROM available_at)::float8,
       extract(epoch FROM start_deadline_at)::float8, extract(epoch FROM started_at)::float8,
       extract(epoch FROM completed_at)::float8, worker_id, version, error_code, error_message, request_id, result
FROM tasks
WHERE {conditions}
ORDER BY tasks.task_id DESC
LIMIT %(limit)s

-- name: list_dead_letters
-- The oldest first, as they are replayed.
SELECT task_id::text, tenant_id, task_type, priority
FROM tasks
WHERE {conditions}
ORDER BY tasks.task_id
LIMIT %(limit)s

-- name: list_artifacts
SELECT task_id::text, index, key, content_type, size_bytes, sha256, width, height, duration_s
FROM artifacts
WHERE task_id = ANY(%(task_ids)s::uuid[])
ORDER BY artifacts.task_id, index
