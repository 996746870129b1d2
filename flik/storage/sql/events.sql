-- The log of a task is read off its rows, all in one statement: what it sees is one moment.

-- name: get_history
SELECT {columns},
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
                                             f.duration_s, f.upload_attempts) ORDER BY f.index)
            FROM artifacts f WHERE f.task_id = t.task_id)
       END,
       CASE WHEN t.dag_id IS NOT NULL THEN
           (SELECT json_build_array(s.waited, extract(epoch FROM s.released_at)::float8)
            FROM dag_steps s WHERE s.task_id = t.task_id)
       END
FROM tasks t
WHERE t.task_id = %(task_id)s::uuid

-- name: list_positions
-- How far the logs of some tasks and dags are.
SELECT task_id::text, seq FROM tasks WHERE task_id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT dag_id::text, seq FROM dags WHERE dag_id = ANY(%(ids)s::uuid[])

-- name: get_dag_history
SELECT {columns}, d.seq,
       (SELECT json_agg(json_build_array(s.ended_seq, s.step_id, s.task_id, t.status,
                                         extract(epoch FROM t.completed_at)::float8, t.error_code, t.error_message)
                        ORDER BY s.ended_seq)
        FROM dag_steps s JOIN tasks t ON t.task_id = s.task_id
        WHERE s.dag_id = d.dag_id AND s.ended_seq IS NOT NULL),
       (SELECT json_agg(json_build_array(r.ended_seq, extract(epoch FROM r.ended_at)::float8, r.error_code,
                                         r.error_message, r.error_step, extract(epoch FROM r.resumed_at)::float8)
                        ORDER BY r.round)
        FROM dag_rounds r WHERE r.dag_id = d.dag_id)
FROM dags d
WHERE d.dag_id = %(dag_id)s::uuid
