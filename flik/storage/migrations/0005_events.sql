-- The log of a task is read off its rows (flik/domain/event.py): what is added are the numbers of its events.

ALTER TABLE tasks ADD COLUMN seq integer NOT NULL DEFAULT 1;     -- of the latest event
ALTER TABLE attempts ADD COLUMN seq integer NOT NULL DEFAULT 0;  -- of the event that tells of its end
ALTER TABLE attempts ADD COLUMN available_at timestamptz;        -- when the task was to be tried again

-- Retries by callers: each begins a new round of attempts.
CREATE TABLE rounds (
    task_id  uuid        NOT NULL,
    seq      integer     NOT NULL CHECK (seq > 1),
    begun_at timestamptz NOT NULL,
    PRIMARY KEY (task_id, seq)
);

-- What ran before is numbered as it would have been; callers' retries of that time are not known.
UPDATE attempts a
SET seq = n.seq, available_at = n.available_at
FROM (
    SELECT e.task_id, e.lease_token,
           1 + 2 * row_number() OVER w
             + CASE e.outcome WHEN 'COMPLETED' THEN (SELECT count(*) FROM artifacts f WHERE f.task_id = e.task_id)
                              ELSE 0 END AS seq,
           CASE WHEN e.outcome NOT IN ('COMPLETED', 'CANCELLED')
                 AND (lead(e.ended_at) OVER w IS NOT NULL OR t.completed_at IS NULL OR t.status <> 'FAILED')
                THEN e.ended_at END AS available_at
    FROM attempts e JOIN tasks t ON t.task_id = e.task_id
    WINDOW w AS (PARTITION BY e.task_id ORDER BY e.started_at, e.ended_at)
) n
WHERE a.task_id = n.task_id AND a.lease_token = n.lease_token;

UPDATE tasks t
SET seq = coalesce((SELECT max(a.seq) FROM attempts a WHERE a.task_id = t.task_id), 1)
        + CASE WHEN t.status = 'PROCESSING' OR t.status = 'EXPIRED'
                 OR (t.status = 'CANCELLED' AND NOT EXISTS (
                        SELECT FROM attempts a WHERE a.task_id = t.task_id AND a.outcome = 'CANCELLED'))
               THEN 1 ELSE 0 END
WHERE t.attempt > 0 OR t.status <> 'QUEUED';
