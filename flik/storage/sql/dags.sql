-- Dags: stored with the tasks of their steps, moved on by the queue, read by the gateway. Times are seconds since the
-- epoch on both sides. Who moves a step runs `lock_dags` first, in the same transaction: then nobody else moves a
-- step of these dags, and what it reads stays true until it commits.

-- name: insert_dags
-- Goes with `insert_tasks` of sql/tasks.sql: `winners` holds what is to be stored, `dags` and `steps` as JSON.
INSERT INTO dags (dag_id, tenant_id, priority, region, created_at, deadline_at, metadata, request_id, trace_id,
                  hook_kinds)
SELECT d.dag_id, d.tenant_id, d.priority, d.region, to_timestamp(d.created_at), to_timestamp(d.deadline_at),
       d.metadata, d.request_id, d.trace_id, d.hook_kinds
FROM winners, json_to_recordset(winners.dags)
     AS d(dag_id uuid, tenant_id text, priority smallint, region text, created_at float8, deadline_at float8,
          metadata jsonb, request_id text, trace_id text, hook_kinds text[])
ON CONFLICT (dag_id) DO NOTHING
RETURNING dag_id

-- name: insert_dag_webhooks
-- Those that the dags which were `dags_stored` bring with them.
INSERT INTO task_webhooks (task_id, receiver_id, url, secret)
SELECT o.task_id, o.receiver_id, o.url, o.secret
FROM json_to_recordset(%(own_webhooks)s::json) AS o(task_id uuid, receiver_id uuid, url text, secret text)
JOIN dags_stored s ON s.dag_id = o.task_id

-- name: insert_steps
-- Those of the dags which were `dags_stored`: the others have theirs.
INSERT INTO dag_steps (task_id, dag_id, place, step_id, parents, on_failure, start_within_s, waited, reuse)
SELECT s.task_id, s.dag_id, s.place, s.step_id, s.parents, s.on_failure, s.start_within_s, s.parents <> '{}', s.reuse
FROM winners, json_to_recordset(winners.steps)
     AS s(task_id uuid, dag_id uuid, place smallint, step_id text, parents smallint[], on_failure text,
          start_within_s float8, reuse boolean)
JOIN dags_stored USING (dag_id)

-- name: store_dags
-- Dags that come without an idempotency key.
WITH winners AS (
    SELECT %(tasks)s::json AS tasks, %(dags)s::json AS dags, %(steps)s::json AS steps
), {storing}, dags_stored AS (
{insert_dags}
), dags_hooked AS (
{insert_dag_webhooks}
)
{insert_steps}

-- name: lock_dags
-- With whether a webhook may want to hear of them.
SELECT dag_id::text, status::text, seq, extract(epoch FROM deadline_at)::float8, tenant_id, round,
       hook_kinds IS NOT NULL
       OR EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = dags.tenant_id AND w.place > 0 AND w.status <> 'DISABLED')
FROM dags
WHERE dag_id = ANY(%(dag_ids)s::uuid[])
ORDER BY dags.dag_id
FOR UPDATE

-- name: find_dags_of
-- Of which dags these tasks are steps.
SELECT DISTINCT dag_id::text FROM tasks WHERE task_id = ANY(%(task_ids)s::uuid[]) AND dag_id IS NOT NULL

-- name: read_steps
SELECT s.dag_id::text, s.task_id::text, s.start_within_s, s.ended_seq,
       s.step_id, t.status::text, s.parents, s.on_failure, t.error_code, t.error_message
FROM dag_steps s JOIN tasks t ON t.task_id = s.task_id
WHERE s.dag_id = ANY(%(dag_ids)s::uuid[]) AND s.current
ORDER BY s.dag_id, s.place

-- name: advance_dags
-- PENDING -> QUEUED | CANCELLED for `moves`; with them the numbers of the events of dags, and the ends of those that
-- have ended.
WITH moved AS (
    UPDATE tasks t
    SET status = m.status::task_status, seq = t.seq + 1,
        available_at = CASE WHEN m.status = 'QUEUED' THEN to_timestamp(%(now)s) ELSE t.available_at END,
        start_deadline_at = to_timestamp(m.start_deadline_at),
        completed_at = CASE WHEN m.status = 'CANCELLED' THEN to_timestamp(%(now)s) END,
        error_code = m.error_code, error_message = m.error_message
    FROM json_to_recordset(%(moves)s::json)
         AS m(task_id uuid, status text, start_deadline_at float8, error_code text, error_message text)
    WHERE t.task_id = m.task_id AND t.status = 'PENDING'
    RETURNING t.task_id, t.status, t.seq, t.tenant_id, t.task_type, t.priority, t.created_at, t.available_at,
              t.error_code, t.error_message, t.hook_kinds
), noted AS (
    UPDATE dag_steps s
    SET released_at = coalesce(s.released_at, to_timestamp(n.released_at)),
        ended_seq = coalesce(s.ended_seq, n.ended_seq)
    FROM json_to_recordset(%(steps)s::json) AS n(task_id uuid, released_at float8, ended_seq integer)
    WHERE s.task_id = n.task_id
), ended AS (
    UPDATE dags d
    SET seq = n.seq, status = n.status::dag_status, error_code = n.error_code, error_message = n.error_message,
        error_step = n.error_step,
        completed_at = CASE WHEN n.status <> 'RUNNING' THEN to_timestamp(%(now)s) END
    FROM json_to_recordset(%(dags)s::json)
         AS n(dag_id uuid, seq integer, status text, error_code text, error_message text, error_step text)
    WHERE d.dag_id = n.dag_id
), told_of_dags AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT d.dag_id, e.seq, d.tenant_id, e.kind, to_timestamp(%(now)s), e.data
    FROM json_to_recordset(%(told)s::json) AS e(dag_id uuid, seq integer, kind text, data jsonb)
    JOIN dags d ON d.dag_id = e.dag_id
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = d.tenant_id AND w.place > 0 AND w.status <> 'DISABLED' AND e.kind = ANY(w.kinds))
       OR e.kind = ANY(d.hook_kinds)
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, lower(status::text), to_timestamp(%(now)s),
           jsonb_strip_nulls(jsonb_build_object(
               'status', status,
               'error', CASE WHEN error_code IS NOT NULL
                             THEN jsonb_build_object('code', error_code, 'message', error_message) END))
    FROM moved m
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = m.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND lower(m.status::text) = ANY(w.kinds))
       OR lower(m.status::text) = ANY(m.hook_kinds)
)
SELECT status::text, seq, error_code, error_message, task_id::text, tenant_id, task_type, priority,
       date_part('epoch', created_at), date_part('epoch', available_at)
FROM moved

-- name: list_outputs
-- What the parents of steps brought forth, as JSON in the order of the parents, and whether a step may reuse something.
SELECT s.task_id::text, s.reuse,
       CASE WHEN s.parents <> '{}' THEN (SELECT json_agg(json_build_object(
                   'step_id', p.step_id, 'text', t.result -> 'text', 'metadata', t.result -> 'metadata',
                   'artifacts', (SELECT coalesce(json_agg(json_build_object(
                                            'index', a.index, 'key', a.key, 'content_type', a.content_type,
                                            'size_bytes', a.size_bytes, 'sha256', a.sha256, 'width', a.width,
                                            'height', a.height, 'duration_s', a.duration_s) ORDER BY a.index), '[]')
                                 FROM artifacts a WHERE a.task_id = p.task_id))
               ORDER BY array_position(s.parents, p.place))::text
        FROM dag_steps p JOIN tasks t ON t.task_id = p.task_id
        WHERE p.dag_id = s.dag_id AND p.current AND p.place = ANY(s.parents)) END
FROM dag_steps s
WHERE s.task_id = ANY(%(task_ids)s::uuid[])

-- name: list_reusing
-- Running steps that may reuse something, as `grant_tasks` returns them, with the version that was to run them.
SELECT t.task_id::text, t.lease_token::text, t.tenant_id, t.task_type, t.priority, t.attempt, t.max_attempts,
       t.payload::text, date_part('epoch', t.created_at), t.request_id, t.trace_id, t.region,
       date_part('epoch', t.start_deadline_at), t.seq, t.dag_id::text, t.version
FROM tasks t JOIN dag_steps s ON s.task_id = t.task_id
WHERE t.region = %(region)s AND t.completed_at IS NULL AND t.status = 'PROCESSING' AND t.dag_id IS NOT NULL AND s.reuse

-- name: find_made
-- What completed under keys.
SELECT m.tenant_id, encode(m.key, 'hex'), t.task_id::text, t.result::text,
       (SELECT coalesce(json_agg(json_build_array(a.index, a.key, a.content_type, a.size_bytes, a.sha256, a.width,
                                                  a.height, a.duration_s) ORDER BY a.index), '[]')
        FROM artifacts a WHERE a.task_id = t.task_id),
       extract(epoch FROM t.completed_at - t.started_at)::float8
FROM json_to_recordset(%(places)s::json) AS w(tenant_id text, key text)
JOIN memos m ON m.tenant_id = w.tenant_id AND m.key = decode(w.key, 'hex')
JOIN tasks t ON t.task_id = m.task_id
WHERE t.status = 'COMPLETED'

-- name: remember_made
-- Only what ran is remembered, so what others reused leads to where it was made.
INSERT INTO memos (tenant_id, key, task_id)
SELECT n.tenant_id, decode(n.key, 'hex'), n.task_id
FROM json_to_recordset(%(made)s::json) AS n(tenant_id text, key text, task_id uuid)
ON CONFLICT (tenant_id, key) DO UPDATE SET task_id = EXCLUDED.task_id

-- name: forget_made
-- What files that are gone were remembered by. That is seldom enough to read all that a tenant has for it.
DELETE FROM memos m
USING (SELECT t.tenant_id, coalesce((t.result #>> '{reused,from}')::uuid, t.task_id) AS task_id
       FROM dag_steps s
       JOIN dag_steps p ON p.dag_id = s.dag_id AND p.place = ANY(s.parents)
       JOIN tasks t ON t.task_id = p.task_id
       WHERE s.task_id = ANY(%(steps)s::uuid[])
       UNION
       SELECT tenant_id, task_id FROM tasks WHERE task_id = ANY(%(makers)s::uuid[])) gone
WHERE m.tenant_id = gone.tenant_id AND m.task_id = gone.task_id

-- name: list_late_dags
-- Which dags have steps whose start deadline has passed while they waited for their first start.
SELECT DISTINCT dag_id::text
FROM tasks
WHERE region = %(region)s AND completed_at IS NULL AND status = 'QUEUED' AND start_deadline_at IS NOT NULL
  AND start_deadline_at <= to_timestamp(%(now)s) AND started_at IS NULL AND dag_id IS NOT NULL
LIMIT %(limit)s

-- name: resume_dag
-- FAILED -> RUNNING: new tasks take the places of those in `steps`, and the round that ended is kept for the log.
WITH fresh AS (
    SELECT * FROM json_to_recordset(%(steps)s::json)
                  AS n(ended_id uuid, task_id uuid, status text, start_deadline_at float8)
), stored AS (
    INSERT INTO tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts, created_at, available_at,
                       start_deadline_at, payload, request_id, trace_id, dag_id)
    SELECT n.task_id, t.tenant_id, t.task_type, t.priority, t.region, n.status::task_status, t.max_attempts,
           to_timestamp(%(now)s), to_timestamp(%(now)s), to_timestamp(n.start_deadline_at), t.payload, t.request_id,
           t.trace_id, t.dag_id
    FROM fresh n JOIN tasks t ON t.task_id = n.ended_id
    RETURNING task_id, tenant_id, task_type, priority, status, created_at, available_at, hook_kinds, region
), replaced AS (
    UPDATE dag_steps s SET current = false FROM fresh n WHERE s.task_id = n.ended_id
), begun AS (
    INSERT INTO dag_steps (task_id, dag_id, place, round, step_id, parents, on_failure, start_within_s, reuse, waited)
    SELECT n.task_id, s.dag_id, s.place, %(round)s + 1, s.step_id, s.parents, s.on_failure, s.start_within_s,
           s.reuse, n.status = 'PENDING'
    FROM fresh n JOIN dag_steps s ON s.task_id = n.ended_id
), kept AS (
    INSERT INTO dag_rounds (dag_id, round, ended_seq, ended_at, error_code, error_message, error_step, resumed_at)
    SELECT dag_id, round, seq, completed_at, error_code, error_message, error_step, to_timestamp(%(now)s)
    FROM dags WHERE dag_id = %(dag_id)s::uuid
), resumed AS (
    UPDATE dags
    SET status = 'RUNNING', round = round + 1, seq = seq + 1, deadline_at = NULL, completed_at = NULL,
        error_code = NULL, error_message = NULL, error_step = NULL
    WHERE dag_id = %(dag_id)s::uuid
), told AS (
{tell_submitted}
)
SELECT 1, task_id::text, tenant_id, task_type, priority,
       date_part('epoch', created_at), date_part('epoch', available_at), nullif(region, %(region)s)
FROM stored WHERE status = 'QUEUED'

-- name: columns
-- What is shown of a dag, as `DagView` has it, up to `counts`.
d.dag_id::text, d.tenant_id, d.status::text, d.priority, d.region, extract(epoch FROM d.created_at)::float8,
       extract(epoch FROM d.completed_at)::float8, extract(epoch FROM d.deadline_at)::float8, d.metadata,
       d.error_code, d.error_message, d.error_step

-- name: counts
-- How many steps of each status a dag has.
(SELECT json_object_agg(c.status, c.steps)
        FROM (SELECT t.status, count(*) AS steps
              FROM dag_steps s JOIN tasks t ON t.task_id = s.task_id
              WHERE s.dag_id = d.dag_id AND s.current
              GROUP BY t.status) c)

-- name: get_dag
SELECT {columns}
FROM dags d
WHERE d.dag_id = %(dag_id)s::uuid

-- name: list_dags
-- Newest first, with how many steps of each status they have.
SELECT {columns}, {counts}
FROM dags d
WHERE {conditions}
ORDER BY d.dag_id DESC
LIMIT %(limit)s

-- name: list_steps
SELECT s.step_id, s.parents, s.on_failure, {columns}
FROM dag_steps s JOIN tasks t ON t.task_id = s.task_id
WHERE s.dag_id = %(dag_id)s::uuid AND s.current
ORDER BY s.place
