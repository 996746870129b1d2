-- Moves of a task after it was submitted; only the queue runs these. Each names the state it expects, so
-- of two moves that race one changes nothing. What tenants with webhooks are to hear of a move is written with it
-- (`told`), and what a task's own webhook is to hear (`hook_kinds`). For those without any this costs a look into an
-- index, of webhooks with a `place`; OFFSET 0 keeps the planner from reading all of them instead, where it expects many
-- tasks. `now` is a parameter, in seconds since the epoch; `region` is that of the queue. What callers ask for moves tasks
-- of any region, and says of those of another one whose they are.
-- ORDER BY says `tasks.task_id`: the bare name is the text that is returned, which no index is in the order of.
--
-- The BETWEEN of grant and settle is true of every id. It makes the planner expect one row, so that each row's task is
-- looked up by its key; while it knew nothing of a growing table, it read all of that for each batch, 290 and 450 us a
-- task instead of 10 and 18, until the first ANALYZE (measured 2026-11-24).

-- name: grant_tasks
-- QUEUED -> PROCESSING. A start deadline counts until the first start.
WITH granted AS (
    UPDATE tasks t
    SET status = 'PROCESSING', attempt = t.attempt + 1, seq = t.seq + 1, lease_token = p.lease_token,
        worker_id = (%(worker_ids)s::text[])[p.place], version = (%(versions)s::text[])[p.place],
        started_at = to_timestamp(%(now)s)
    FROM unnest(%(task_ids)s::uuid[], %(lease_tokens)s::uuid[], %(places)s::int[]) AS p(task_id, lease_token, place)
    WHERE p.task_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
      AND t.task_id = p.task_id AND t.status = 'QUEUED' AND t.attempt < t.max_attempts
      AND (t.start_deadline_at IS NULL OR t.start_deadline_at > to_timestamp(%(now)s) OR t.started_at IS NOT NULL)
    RETURNING t.task_id, t.lease_token, t.tenant_id, t.task_type, t.priority, t.attempt, t.max_attempts, t.payload,
              t.created_at, t.request_id, t.trace_id, t.region, t.start_deadline_at, t.seq, t.worker_id, t.version,
              t.dag_id, t.hook_kinds
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, 'processing', to_timestamp(%(now)s),
           jsonb_build_object('status', 'PROCESSING', 'attempt', attempt, 'workerId', worker_id, 'version', version)
    FROM granted g
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = g.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND 'processing' = ANY(w.kinds))
       OR 'processing' = ANY(g.hook_kinds)
)
SELECT task_id::text, lease_token::text, tenant_id, task_type, priority, attempt, max_attempts, payload::text,
       date_part('epoch', created_at), request_id, trace_id, region, date_part('epoch', start_deadline_at), seq,
       dag_id::text, NULL, false  -- what makes it a step is read apart
FROM granted

-- name: settle_tasks
-- PROCESSING -> COMPLETED | FAILED | CANCELLED | QUEUED (to be tried again), fenced by the lease token, with the
-- attempt's row. An attempt that does not count (handed back) gives its number back. What is to be tried again
-- without an attempt left is FAILED: it would wait for ever.
WITH settled AS (
    UPDATE tasks t
    SET status = CASE WHEN s.status = 'QUEUED' AND t.attempt - s.uncounted >= t.max_attempts THEN 'FAILED'
                      ELSE s.status::task_status END,
        lease_token = NULL,
        attempt = t.attempt - s.uncounted,
        seq = t.seq + 1 + CASE WHEN s.status = 'COMPLETED' THEN coalesce(json_array_length(s.artifacts), 0) ELSE 0 END,
        completed_at = CASE WHEN s.status = 'QUEUED' AND t.attempt - s.uncounted < t.max_attempts THEN NULL
                            ELSE to_timestamp(%(now)s) END,
        available_at = coalesce(to_timestamp(s.available_at), t.available_at),
        result = s.result, error_code = s.error_code, error_message = s.error_message
    FROM json_to_recordset(%(rows)s::json)
         AS s(task_id uuid, lease_token uuid, status text, outcome text, uncounted smallint, available_at float8,
              result jsonb, error_code text, error_message text, artifacts json, uploads json,
              made_by uuid)
    WHERE s.task_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
      AND t.task_id = s.task_id AND t.status = 'PROCESSING' AND t.lease_token = s.lease_token
    RETURNING t.task_id, s.lease_token, s.outcome, s.uncounted, t.tenant_id, t.task_type, t.priority, t.status,
              t.attempt, t.seq, t.created_at, t.available_at, t.started_at, t.worker_id, t.version, t.result,
              t.error_code, t.error_message, s.artifacts, s.uploads, s.made_by, t.hook_kinds
), ended AS (
    INSERT INTO attempts (task_id, lease_token, attempt, worker_id, version, started_at, ended_at, outcome,
                          available_at, error_code, error_message, seq, made_by)
    SELECT task_id, lease_token, attempt + uncounted, worker_id, version, started_at, to_timestamp(%(now)s),
           outcome::attempt_outcome, CASE WHEN status = 'QUEUED' THEN available_at END, error_code, error_message, seq,
           made_by
    FROM settled
), stored AS (
    INSERT INTO artifacts (task_id, index, key, content_type, size_bytes, sha256, width, height, duration_s,
                           upload_attempts, created_at)
    SELECT s.task_id, a.index, a.key, a.content_type, a.size_bytes, a.sha256, a.width, a.height, a.duration_s,
           a.upload_attempts, to_timestamp(%(now)s)
    FROM settled s
    CROSS JOIN json_to_recordset(s.artifacts)
         AS a(index smallint, key text, content_type text, size_bytes bigint, sha256 text,
              width integer, height integer, duration_s float8, upload_attempts smallint)
    WHERE s.status = 'COMPLETED'
), uploaded AS (
    INSERT INTO uploads (task_id, lease_token, index, status, attempts, size_bytes, started_at, ended_at, error)
    SELECT s.task_id, s.lease_token, u.index, u.status::upload_status, u.attempts, u.size_bytes,
           to_timestamp(u.started_at), to_timestamp(u.ended_at), u.error
    FROM settled s
    CROSS JOIN json_to_recordset(s.uploads)
         AS u(index smallint, status text, attempts integer, size_bytes bigint, started_at float8, ended_at float8,
              error text)
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT s.task_id, e.seq, s.tenant_id, e.kind, to_timestamp(%(now)s), e.data
    FROM (SELECT * FROM settled
          WHERE EXISTS (SELECT FROM webhooks w
                        WHERE w.tenant_id = settled.tenant_id AND w.place > 0 AND w.status <> 'DISABLED')
             OR settled.hook_kinds IS NOT NULL) s
    CROSS JOIN LATERAL (
        SELECT s.seq,
               CASE s.status WHEN 'COMPLETED' THEN 'completed' WHEN 'FAILED' THEN 'failed' ELSE 'retryScheduled' END,
               jsonb_strip_nulls(jsonb_build_object(
                   'status', s.status, 'attempt', s.attempt + s.uncounted, 'workerId', s.worker_id,
                   'version', s.version,
                   'result', CASE WHEN s.result -> 'reused' IS NULL THEN s.result  -- as answers have it
                                  ELSE s.result - 'reused' || jsonb_build_object('reusedFrom', s.result #> '{reused,from}',
                                                                                 'saved', s.result #> '{reused,saved}') END,
                   'error', CASE WHEN s.error_code IS NOT NULL
                                 THEN jsonb_build_object('code', s.error_code, 'message', s.error_message) END,
                   'reason', CASE WHEN s.status = 'QUEUED' THEN s.outcome END,
                   'availableAt', CASE WHEN s.status = 'QUEUED'
                                       THEN to_char(s.available_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') END))
        UNION ALL
        SELECT s.seq - json_array_length(s.artifacts) + place::integer - 1, 'artifact',
               jsonb_build_object(
                   'status', 'PROCESSING', 'attempt', s.attempt, 'workerId', s.worker_id, 'version', s.version,
                   'artifact', jsonb_strip_nulls(jsonb_build_object(
                       'index', file -> 'index', 'contentType', file -> 'content_type',
                       'sizeBytes', file -> 'size_bytes', 'sha256', file -> 'sha256', 'width', file -> 'width',
                       'height', file -> 'height', 'durationS', file -> 'duration_s')))
        FROM json_array_elements(s.artifacts) WITH ORDINALITY AS files(file, place)
        WHERE s.status = 'COMPLETED'
    ) AS e(seq, kind, data)
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = s.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND e.kind = ANY(w.kinds))
       OR e.kind = ANY(s.hook_kinds)
)
SELECT task_id::text, status::text, attempt, seq, task_type, tenant_id, version, date_part('epoch', started_at),
       CASE WHEN status = 'QUEUED' THEN priority END,
       CASE WHEN status = 'QUEUED' THEN date_part('epoch', created_at) END,
       CASE WHEN status = 'QUEUED' THEN date_part('epoch', available_at) END
FROM settled

-- name: cancel_task
-- PENDING | QUEUED | PROCESSING -> CANCELLED. Taking the lease token away is what keeps a late completion out.
WITH before AS (
    SELECT task_id, status, lease_token FROM tasks WHERE task_id = %(task_id)s::uuid FOR UPDATE
), cancelled AS (
    UPDATE tasks t
    SET status = 'CANCELLED', completed_at = to_timestamp(%(now)s), lease_token = NULL, seq = t.seq + 1
    FROM before b
    WHERE t.task_id = b.task_id AND b.status IN ('PENDING', 'QUEUED', 'PROCESSING')
    RETURNING t.task_id, t.tenant_id, t.attempt, t.seq, t.worker_id, t.version, t.started_at, t.hook_kinds, t.region
), ended AS (
    INSERT INTO attempts (task_id, lease_token, attempt, worker_id, version, started_at, ended_at, outcome, seq)
    SELECT b.task_id, b.lease_token, c.attempt, c.worker_id, c.version, c.started_at, to_timestamp(%(now)s),
           'CANCELLED', c.seq
    FROM before b JOIN cancelled c ON c.task_id = b.task_id
    WHERE b.status = 'PROCESSING'
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, 'cancelled', to_timestamp(%(now)s), '{"status": "CANCELLED"}'
    FROM cancelled c
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = c.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND 'cancelled' = ANY(w.kinds))
       OR 'cancelled' = ANY(c.hook_kinds)
)
SELECT b.status::text, c.tenant_id, c.seq, r.attempt, r.worker_id, r.version, nullif(c.region, %(region)s)
FROM before b LEFT JOIN cancelled c ON true LEFT JOIN cancelled r ON b.status = 'PROCESSING'

-- name: retry_task
-- FAILED -> QUEUED, with another round of attempts; not a step, which goes on with its dag. A failed task has no lease token; it is named because a retry that
-- waited for the settle is first checked against the row as it was before, which had one.
WITH before AS (
    SELECT task_id, status FROM tasks WHERE task_id = %(task_id)s::uuid FOR UPDATE
), retried AS (
    UPDATE tasks t
    SET status = 'QUEUED', lease_token = NULL, completed_at = NULL, available_at = to_timestamp(%(now)s),
        start_deadline_at = NULL, max_attempts = t.attempt + %(round)s, error_code = NULL, error_message = NULL,
        seq = t.seq + 1
    FROM before b
    WHERE t.task_id = b.task_id AND b.status = 'FAILED' AND t.dag_id IS NULL
    RETURNING t.task_id, t.tenant_id, t.task_type, t.priority, t.created_at, t.available_at, t.seq, t.hook_kinds,
              t.region
), begun AS (
    INSERT INTO rounds (task_id, seq, begun_at) SELECT task_id, seq, available_at FROM retried
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, 'queued', to_timestamp(%(now)s), '{"status": "QUEUED"}'
    FROM retried r
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = r.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND 'queued' = ANY(w.kinds))
       OR 'queued' = ANY(r.hook_kinds)
)
SELECT b.status::text, r.seq, r.task_id::text, r.tenant_id, r.task_type, r.priority,
       date_part('epoch', r.created_at), date_part('epoch', r.available_at), nullif(r.region, %(region)s)
FROM before b LEFT JOIN retried r ON true

-- name: replay_tasks
-- FAILED -> QUEUED for those of the named tasks that are dead letters still. What another move holds is left to it.
WITH found AS MATERIALIZED (
    SELECT task_id FROM tasks WHERE task_id = ANY(%(task_ids)s::uuid[]) AND status = 'FAILED' AND dag_id IS NULL
    FOR UPDATE SKIP LOCKED
), replayed AS (
    UPDATE tasks t
    SET status = 'QUEUED', completed_at = NULL, available_at = to_timestamp(%(now)s), start_deadline_at = NULL,
        max_attempts = t.attempt + %(round)s, error_code = NULL, error_message = NULL, seq = t.seq + 1
    FROM found f
    WHERE t.task_id = f.task_id AND t.status = 'FAILED'
    RETURNING t.task_id, t.tenant_id, t.task_type, t.priority, t.created_at, t.available_at, t.seq, t.hook_kinds,
              t.region
), begun AS (
    INSERT INTO rounds (task_id, seq, begun_at) SELECT task_id, seq, available_at FROM replayed
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, 'queued', to_timestamp(%(now)s), '{"status": "QUEUED"}'
    FROM replayed r
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = r.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND 'queued' = ANY(w.kinds) OFFSET 0)
       OR 'queued' = ANY(r.hook_kinds)
)
SELECT seq, task_id::text, tenant_id, task_type, priority,
       date_part('epoch', created_at), date_part('epoch', available_at), nullif(region, %(region)s)
FROM replayed

-- name: expire_tasks
-- QUEUED -> EXPIRED when the start deadline of a task that never started has passed. Of steps those only whose dag the
-- caller has locked.
WITH found AS MATERIALIZED (
    SELECT task_id FROM tasks
    WHERE region = %(region)s AND completed_at IS NULL AND status = 'QUEUED' AND start_deadline_at IS NOT NULL
      AND start_deadline_at <= to_timestamp(%(now)s) AND started_at IS NULL
      AND (dag_id IS NULL OR dag_id = ANY(%(dag_ids)s::uuid[]))
    ORDER BY start_deadline_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE tasks t
    SET status = 'EXPIRED', completed_at = to_timestamp(%(now)s), seq = t.seq + 1
    FROM found f
    WHERE t.task_id = f.task_id AND t.status = 'QUEUED'
    RETURNING t.task_id, t.tenant_id, t.seq, t.hook_kinds
), told AS (
    INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
    SELECT task_id, seq, tenant_id, 'expired', to_timestamp(%(now)s), '{"status": "EXPIRED"}'
    FROM expired e
    WHERE EXISTS (SELECT FROM webhooks w
                  WHERE w.tenant_id = e.tenant_id AND w.place > 0
                    AND w.status <> 'DISABLED' AND 'expired' = ANY(w.kinds) OFFSET 0)
       OR 'expired' = ANY(e.hook_kinds)
)
SELECT task_id::text, tenant_id, seq FROM expired

-- name: count_backlogs
SELECT task_type, priority, tenant_id, count(*)
FROM tasks
WHERE region = %(region)s AND completed_at IS NULL AND status = 'QUEUED'
GROUP BY task_type, priority, tenant_id

-- name: page_backlogs
-- The next rows of many backlogs, each by itself in the order of the index.
SELECT t.task_id::text, p.tenant_id, %(task_type)s::text, p.priority,
       date_part('epoch', t.created_at), date_part('epoch', t.available_at)
FROM unnest(%(priorities)s::smallint[], %(tenant_ids)s::text[], %(afters)s::uuid[], %(limits)s::int[])
     AS p(priority, tenant_id, after, rows)
CROSS JOIN LATERAL (
    SELECT task_id, created_at, available_at
    FROM tasks
    WHERE region = %(region)s AND completed_at IS NULL AND status = 'QUEUED'
      AND task_type = %(task_type)s AND priority = p.priority
      AND tenant_id = p.tenant_id AND task_id > p.after
    ORDER BY task_id
    LIMIT p.rows
) t

-- name: scan_recent
-- Tasks submitted lately: found here when whoever committed them died before announcing them. The cast keeps the
-- planner from the index of all that waits: by primary key only what is recent is read.
SELECT task_id::text, tenant_id, task_type, priority,
       date_part('epoch', created_at), date_part('epoch', available_at)
FROM tasks
WHERE region = %(region)s AND status::text = 'QUEUED' AND task_id > %(after)s::uuid
ORDER BY tasks.task_id
LIMIT %(limit)s

-- name: scan_waiting
-- One page of a walk over everything that waits, in the order of the index.
SELECT task_id::text, tenant_id, task_type, priority,
       date_part('epoch', created_at), date_part('epoch', available_at)
FROM tasks
WHERE region = %(region)s AND completed_at IS NULL AND status = 'QUEUED'
  AND (task_type, priority, tenant_id, task_id)
      > (%(task_type)s::text, %(priority)s::smallint, %(tenant_id)s::text, %(task_id)s::uuid)
ORDER BY task_type, priority, tenant_id, tasks.task_id
LIMIT %(limit)s

-- name: list_running
SELECT task_id::text, lease_token::text, worker_id, task_type, priority, tenant_id,
       date_part('epoch', created_at), attempt, max_attempts, date_part('epoch', started_at), dag_id::text
FROM tasks
WHERE region = %(region)s AND completed_at IS NULL AND status = 'PROCESSING'
