-- Streams that callers start or join by name. Times are seconds since the epoch.

-- name: start_stream
-- The task is stored if the name is free, that is new, or its stream is over for `ttl_s`. A name that another
-- transaction is taking is waited for; a task that is not seen yet has not ended. The row of the same task is that of
-- an earlier try of this statement. What stores the task is that of sql/tasks.sql.
WITH won AS (
    INSERT INTO streams AS kept (tenant_id, key, task_id, started_at)
    VALUES (%(tenant_id)s, %(key)s, %(task_id)s::uuid, to_timestamp(%(now)s))
    ON CONFLICT (tenant_id, key) DO UPDATE
       SET task_id = EXCLUDED.task_id, started_at = EXCLUDED.started_at
       WHERE kept.task_id = EXCLUDED.task_id
          OR EXISTS (SELECT FROM tasks t WHERE t.task_id = kept.task_id
                     AND t.completed_at <= to_timestamp(%(now)s) - make_interval(secs => %(ttl_s)s))
    RETURNING task_id
), winners AS (
    SELECT %(tasks)s::json AS tasks FROM won
), {storing}
SELECT task_id::text FROM won

-- name: find_stream
SELECT s.task_id::text
FROM streams s
WHERE s.tenant_id = %(tenant_id)s AND s.key = %(key)s
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = s.task_id
                  AND t.completed_at <= to_timestamp(%(now)s) - make_interval(secs => %(ttl_s)s))

-- name: forget_streams
-- Names whose stream has been over for a day, longer than any is kept. One that is being started again is left alone.
WITH over AS (
    SELECT s.tenant_id, s.key
    FROM streams s LEFT JOIN tasks t ON t.task_id = s.task_id
    WHERE s.started_at <= to_timestamp(%(now)s) - interval '1 day'
      AND (t.task_id IS NULL OR t.completed_at <= to_timestamp(%(now)s) - interval '1 day')
    ORDER BY s.started_at LIMIT %(limit)s
    FOR UPDATE OF s SKIP LOCKED
), forgotten AS (
    DELETE FROM streams USING over WHERE streams.tenant_id = over.tenant_id AND streams.key = over.key
    RETURNING 1
)
SELECT count(*) FROM forgotten
