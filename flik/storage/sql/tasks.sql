-- Tasks as submitters and readers see them. Times are seconds since the epoch on both sides. Batches arrive as one
-- JSON document: building ten arrays costs the sender five times as much (measured 2026-11). ORDER BY says
-- `tasks.task_id`: the bare name is the text that is returned, which no index is in the order of.

-- name: store_tasks
WITH {storing}
SELECT count(*) FROM stored

-- name: insert_tasks
-- (nothing) -> QUEUED, or PENDING for a step that waits for others. A row that is there already was committed by an
-- earlier try of the same submission. Its source is a parameter, or, inside sql/idempotency.sql, the submissions whose
-- key is free. `store_own_webhooks` and `tell_submitted` go with it (`storing` of flik/storage/tasks.py).
INSERT INTO tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts,
                   created_at, available_at, start_deadline_at, payload, request_id, trace_id, hook_kinds, dag_id)
SELECT n.task_id, n.tenant_id, n.task_type, n.priority, n.region,
       CASE WHEN n.waits THEN 'PENDING' ELSE 'QUEUED' END::task_status, coalesce(n.max_attempts, %(max_attempts)s),
       to_timestamp(n.created_at), to_timestamp(n.created_at), to_timestamp(n.start_deadline_at),
       n.payload, n.request_id, n.trace_id, n.hook_kinds, n.dag_id
FROM {source}
     AS n(task_id uuid, tenant_id text, task_type text, priority smallint, region text, payload jsonb,
          created_at float8, start_deadline_at float8, request_id text, trace_id text, hook_kinds text[],
          dag_id uuid, waits boolean, max_attempts smallint)
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id, tenant_id, created_at, status, hook_kinds

-- name: store_own_webhooks
-- Those that the tasks which were `stored` bring with them.
INSERT INTO task_webhooks (task_id, receiver_id, url, secret)
SELECT o.task_id, o.receiver_id, o.url, o.secret
FROM json_to_recordset(%(own_webhooks)s::json) AS o(task_id uuid, receiver_id uuid, url text, secret text)
JOIN stored s ON s.task_id = o.task_id

-- name: tell_submitted
-- What is to be heard of what was `stored`: by tenants with webhooks, and by tasks' own webhooks.
INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
SELECT s.task_id, 1, s.tenant_id, lower(s.status::text), s.created_at, jsonb_build_object('status', s.status)
FROM stored s
WHERE EXISTS (SELECT FROM webhooks w
              WHERE w.tenant_id = s.tenant_id AND w.place > 0
                AND w.status <> 'DISABLED' AND lower(s.status::text) = ANY(w.kinds))
   OR lower(s.status::text) = ANY(s.hook_kinds)

-- name: columns
-- What is shown of a task, as `TaskView` has it, up to its result.
t.task_id::text, t.tenant_id, t.task_type, t.priority, t.region, t.status::text, t.attempt, t.max_attempts,
       extract(epoch FROM t.created_at)::float8, extract(epoch FROM t.available_at)::float8,
       extract(epoch FROM t.start_deadline_at)::float8, extract(epoch FROM t.started_at)::float8,
       extract(epoch FROM t.completed_at)::float8, t.worker_id, t.version, t.error_code, t.error_message, t.request_id,
       t.dag_id::text, t.result

-- name: get_task
SELECT {columns}
FROM tasks t
WHERE t.task_id = %(task_id)s::uuid

-- name: list_tasks
-- Newest first. UUIDv7 carries the time of submission, so a range of time is a range of ids.
SELECT {columns}
FROM tasks t
WHERE {conditions}
ORDER BY t.task_id DESC
LIMIT %(limit)s

-- name: list_dead_letters
-- The oldest first, as they are replayed.
SELECT task_id::text, tenant_id, task_type, priority
FROM tasks
WHERE {conditions}
ORDER BY tasks.task_id
LIMIT %(limit)s

-- name: list_artifacts
SELECT task_id::text, index, key, content_type, size_bytes, sha256, width, height, duration_s,
       upload_attempts
FROM artifacts
WHERE task_id = ANY(%(task_ids)s::uuid[])
ORDER BY artifacts.task_id, index
