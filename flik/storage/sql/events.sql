-- The log of a task is read off its rows, all in one statement: what it sees is one moment.

-- name: get_history
SELECT task_id::text, tenant_id, task_type, priority, region, status::text, attempt, max_attempts,
       extract(epoch FROM created_at)::float8, extract(epoch FROM available_at)::float8,
       extract(epoch FROM start_deadline_at)::float8, extract(epoch FROM started_at)::float8,
       extract(epoch FROM completed_at)::float8, worker_id, version, error_code, error_message, request_id, result,
       seq,
       (SELECT json_agg(json_build_array(a.seq, a.attempt, a.worker_id, a.version,
                                         extract(epoch FROM a.started_at)::float8,
                                         extract(epoch FROM a.ended_at)::float8, a.outcome,
                                         extract(epoch FROM a.available_at)::float8, a.error_code, a.error_message)
                        ORDER BY a.seq)
        FROM attempts a WHERE a.task_id = t.task_id),
       (SELECT json_agg(json_build_array(r.seq, extract(epoch FROM r.begun_at)::float8) ORDER BY r.seq)
        FROM rounds r WHERE r.task_id = t.task_id),
       CASE WHEN status = 'COMPLETED' THEN
           (SELECT json_agg(json_build_array(f.index, f.key, f.content_type, f.size_bytes, f.sha256, f.width, f.height,
                                             f.duration_s) ORDER BY f.index)
            FROM artifacts f WHERE f.task_id = t.task_id)
       END
FROM tasks t
WHERE task_id = %(task_id)s::uuid

-- name: list_positions
-- How far the logs of some tasks are.
SELECT task_id::text, seq FROM tasks WHERE task_id = ANY(%(task_ids)s::uuid[])
