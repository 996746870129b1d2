-- What senders do. Any number of them may run: each statement is safe beside itself and beside the others.
--
-- `webhooks.due_at` may be too early, never too late: whoever makes something due lowers it, and counts `version` up.
-- Only a claim raises it, by what it read, and only where the version is still the one that it read.

-- name: expand_outbox
-- Outbox -> WAITING, one for each webhook that wants the event: those of the tenant, and the task's own unless it is
-- gone, which goes by its receiver. One sender at a time, as others would only wait for its rows. In the order of the key, so that no event
-- is here before an earlier one of its task. Ids are UUIDv7 (RFC 9562, section 5.7), with a counter in rand_a (200
-- events for 11 webhooks at most): lists are ordered by ids, and what is expanded together has one time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(1718380908) AS mine
), next AS MATERIALIZED (
    SELECT o.task_id, o.seq FROM turn, webhook_outbox o WHERE turn.mine ORDER BY o.task_id, o.seq LIMIT %(limit)s
), taken AS (
    DELETE FROM webhook_outbox o USING next n WHERE o.task_id = n.task_id AND o.seq = n.seq RETURNING o.*
), made AS (
    INSERT INTO webhook_deliveries (delivery_id, webhook_id, task_id, seq, kind, at, data, created_at, round_at,
                                    next_at)
    SELECT overlay(replace(gen_random_uuid()::text, '-', '')
                   PLACING lpad(to_hex((%(now)s::float8 * 1000)::bigint), 12, '0') || '7'
                       || lpad(to_hex(row_number() OVER (ORDER BY t.task_id, t.seq)), 3, '0')
                   FROM 1 FOR 16)::uuid,
           w.webhook_id, t.task_id, t.seq, t.kind, t.at, t.data, to_timestamp(%(now)s), to_timestamp(%(now)s),
           to_timestamp(%(now)s)
    FROM taken t CROSS JOIN LATERAL (
        SELECT h.webhook_id FROM webhooks h
        WHERE h.tenant_id = t.tenant_id AND h.place > 0 AND h.status <> 'DISABLED' AND t.kind = ANY(h.kinds)
        UNION ALL
        SELECT o.receiver_id
        FROM task_webhooks o LEFT JOIN tasks k ON k.task_id = o.task_id LEFT JOIN dags g ON g.dag_id = o.task_id
        WHERE o.task_id = t.task_id AND o.gone_at IS NULL AND t.kind = ANY(coalesce(k.hook_kinds, g.hook_kinds))
    ) w
    ORDER BY t.task_id, t.seq
    ON CONFLICT (webhook_id, task_id, seq) DO NOTHING
    RETURNING webhook_id, task_id
), due AS (
    UPDATE webhooks w
    SET due_at = least(w.due_at, greatest(to_timestamp(%(now)s), w.held_until)), version = w.version + 1
    WHERE w.webhook_id IN (SELECT webhook_id FROM made) AND w.place IS NOT NULL
), met AS (
    INSERT INTO webhooks AS w (webhook_id, tenant_id, url, created_at, updated_at, due_at)
    SELECT DISTINCT ON (o.receiver_id) o.receiver_id, t.tenant_id, substring(o.url FROM '^[^/]*//[^/?]*'),
           to_timestamp(%(now)s), to_timestamp(%(now)s), to_timestamp(%(now)s)
    FROM made JOIN task_webhooks o ON o.task_id = made.task_id AND o.receiver_id = made.webhook_id
         JOIN taken t ON t.task_id = made.task_id
    ORDER BY o.receiver_id
    ON CONFLICT (webhook_id) DO UPDATE
       SET due_at = least(w.due_at, greatest(EXCLUDED.due_at, w.held_until)), version = w.version + 1,
           updated_at = EXCLUDED.updated_at
)
SELECT count(*) FROM taken

-- name: claim_deliveries
-- Takes up to `slots` deliveries that are due. Each tenant gets so many that it has at most `share` of the sender's
-- slots, with what `held` says that it has already; first those that have least, then those that waited longest. Of a
-- tenant, those webhooks are looked at that waited longest: the first delivery of each, then the second. A webhook has
-- at most `each` on their way, and one when it is failing. What is behind an earlier event of its task is put off until
-- that one is due, or its lease is over; when that one ends, it is called back. What became a delivery while its task's own
-- webhook was found to be gone is given up.
--
-- Tenants are found one after another, by one look into the index each, however many webhooks of theirs are due.
WITH RECURSIVE tenants AS (
    (SELECT w.tenant_id, w.due_at FROM webhooks w
     WHERE w.status = 'ACTIVE' AND w.due_at IS NOT NULL
     ORDER BY w.tenant_id, w.due_at LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.due_at FROM tenants t CROSS JOIN LATERAL (
        SELECT w.tenant_id, w.due_at FROM webhooks w
        WHERE w.status = 'ACTIVE' AND w.due_at IS NOT NULL AND w.tenant_id > t.tenant_id
        ORDER BY w.tenant_id, w.due_at LIMIT 1
    ) following
), served AS MATERIALIZED (
    SELECT t.tenant_id, s.room, count(*) OVER () AS tenants
    FROM tenants t CROSS JOIN LATERAL (
        SELECT %(share)s::int - coalesce((%(held)s::jsonb ->> t.tenant_id)::int, 0) AS room
    ) s
    WHERE t.due_at <= to_timestamp(%(now)s) AND s.room > 0
    ORDER BY s.room DESC, t.due_at
    LIMIT %(webhooks)s
), turn AS MATERIALIZED (
    SELECT w.*, served.room,
           CASE WHEN w.failures >= %(hold_from)s THEN 1 ELSE %(each)s END
           - (SELECT count(*) FROM webhook_deliveries f
              WHERE f.webhook_id = w.webhook_id AND f.ended_at IS NULL AND f.token IS NOT NULL
                AND f.next_at > to_timestamp(%(now)s)) AS free
    FROM served CROSS JOIN LATERAL (
        SELECT w.webhook_id, w.tenant_id, w.place, w.url, w.failures, w.secret, w.old_secret, w.old_secret_until, w.due_at
        FROM webhooks w JOIN webhooks seen ON seen.webhook_id = w.webhook_id AND seen.version = w.version
        WHERE w.tenant_id = served.tenant_id AND w.status = 'ACTIVE' AND w.due_at <= to_timestamp(%(now)s)
        ORDER BY w.due_at
        LIMIT least(served.room, greatest(%(webhooks)s / served.tenants, 1))
        FOR UPDATE OF w SKIP LOCKED
    ) w
    LIMIT %(webhooks)s
), looked AS MATERIALIZED (
    SELECT turn.webhook_id, turn.tenant_id, turn.room, turn.free, turn.due_at, d.delivery_id, d.next_at,
           (SELECT head.next_at FROM webhook_deliveries head
            WHERE head.webhook_id = d.webhook_id AND head.task_id = d.task_id AND head.ended_at IS NULL
              AND head.seq < d.seq
            ORDER BY head.seq LIMIT 1) AS head_at,
           turn.place IS NULL AND EXISTS (
               SELECT FROM task_webhooks o
               WHERE o.task_id = d.task_id AND o.receiver_id = d.webhook_id AND o.gone_at IS NOT NULL) AS gone
    FROM turn CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries w
        WHERE w.webhook_id = turn.webhook_id AND w.ended_at IS NULL AND w.next_at <= to_timestamp(%(now)s)
        ORDER BY w.next_at, w.delivery_id
        LIMIT %(look)s
        FOR UPDATE SKIP LOCKED
    ) d
), free AS (
    SELECT delivery_id, webhook_id, tenant_id, due_at, looked.room, looked.free,
           row_number() OVER (PARTITION BY webhook_id ORDER BY next_at, delivery_id) AS place
    FROM looked WHERE head_at IS NULL AND NOT gone
), fair AS (
    SELECT delivery_id, webhook_id, due_at, room,
           row_number() OVER (PARTITION BY tenant_id ORDER BY place, due_at, webhook_id) AS place
    FROM free WHERE place <= free.free
), picked AS MATERIALIZED (
    SELECT delivery_id FROM fair WHERE place <= room ORDER BY place - room, due_at, webhook_id LIMIT %(slots)s
), moved AS (
    UPDATE webhook_deliveries d
    SET token = CASE WHEN p.delivery_id IS NOT NULL THEN gen_random_uuid() END,
        next_at = CASE WHEN p.delivery_id IS NOT NULL THEN to_timestamp(%(now)s + %(lease_s)s)
                       WHEN NOT l.gone THEN greatest(l.head_at, to_timestamp(%(now)s + %(lease_s)s)) END,
        state = CASE WHEN l.gone THEN 'GIVEN_UP' ELSE d.state END,
        ended_at = CASE WHEN l.gone THEN to_timestamp(%(now)s) END,
        log = CASE WHEN NOT l.gone THEN d.log
                   WHEN jsonb_array_length(d.log) >= %(most)s THEN d.log - 0 ELSE d.log END
              || CASE WHEN l.gone THEN %(not_sent)s::jsonb ELSE '[]' END
    FROM looked l LEFT JOIN picked p ON p.delivery_id = l.delivery_id
    WHERE d.delivery_id = l.delivery_id AND (p.delivery_id IS NOT NULL OR l.head_at IS NOT NULL OR l.gone)
    RETURNING d.*
), later AS (
    UPDATE webhooks w
    SET version = w.version + 1,
        due_at = CASE
            -- Something is left that may go at once.
            WHEN EXISTS (SELECT FROM free f LEFT JOIN picked p ON p.delivery_id = f.delivery_id
                         WHERE f.webhook_id = w.webhook_id AND f.place <= f.free AND p.delivery_id IS NULL)
            THEN to_timestamp(%(now)s)
            -- Something is left that must wait for one on its way: whoever records that calls back.
            WHEN EXISTS (SELECT FROM free f WHERE f.webhook_id = w.webhook_id AND f.place > f.free)
            THEN to_timestamp(%(now)s + %(lease_s)s)
            ELSE least((SELECT min(r.next_at) FROM webhook_deliveries r
                        WHERE r.webhook_id = w.webhook_id AND r.ended_at IS NULL
                          AND r.delivery_id NOT IN (SELECT delivery_id FROM looked)),
                       CASE WHEN EXISTS (SELECT FROM looked l WHERE l.webhook_id = w.webhook_id)
                            THEN to_timestamp(%(now)s + %(lease_s)s) END)
        END
    FROM turn
    WHERE w.webhook_id = turn.webhook_id
)
SELECT m.delivery_id::text, m.webhook_id::text, turn.tenant_id, m.task_id::text, m.seq, m.kind,
       extract(epoch FROM m.at)::float8, m.data, m.token::text, m.attempts + 1, coalesce(o.url, turn.url),
       turn.failures, coalesce(o.secret, turn.secret),
       CASE WHEN turn.old_secret_until > to_timestamp(%(now)s) THEN turn.old_secret END
FROM moved m JOIN turn ON turn.webhook_id = m.webhook_id
     LEFT JOIN task_webhooks o ON o.task_id = m.task_id AND o.receiver_id = m.webhook_id
WHERE m.token IS NOT NULL

-- name: record_attempt
-- WAITING -> DELIVERED | GIVEN_UP | WAITING (until `next_at`), fenced by the token of the claim. Calls back what is
-- behind it, and tells the webhook: failures in a row, how long it is held, whether it is disabled. Receivers of tasks'
-- own webhooks never are: nobody could set them to ACTIVE again, and other tasks lead there too. If it is gone, so is the
-- task's own webhook: all else of the task that waits for it is given up.
WITH done AS (
    UPDATE webhook_deliveries d
    SET state = %(state)s::delivery_state, token = NULL, attempts = d.attempts + 1,
        next_at = to_timestamp(%(next_at)s::float8),
        ended_at = CASE WHEN %(state)s <> 'WAITING' THEN to_timestamp(%(now)s) END,
        log = CASE WHEN jsonb_array_length(d.log) >= %(most)s THEN d.log - 0 ELSE d.log END || %(note)s::jsonb
    WHERE d.delivery_id = %(delivery_id)s::uuid AND d.token = %(token)s::uuid
    RETURNING d.webhook_id, d.task_id, d.seq, d.ended_at, d.next_at
), gone AS (
    UPDATE task_webhooks o SET gone_at = to_timestamp(%(now)s)
    FROM done
    WHERE %(gone)s AND o.task_id = done.task_id AND o.receiver_id = done.webhook_id
    RETURNING o.task_id, o.receiver_id
), rest AS (
    UPDATE webhook_deliveries r
    SET state = 'GIVEN_UP', token = NULL, next_at = NULL, ended_at = to_timestamp(%(now)s),
        log = CASE WHEN jsonb_array_length(r.log) >= %(most)s THEN r.log - 0 ELSE r.log END || %(not_sent)s::jsonb
    FROM gone
    WHERE r.webhook_id = gone.receiver_id AND r.task_id = gone.task_id AND r.ended_at IS NULL
      AND r.delivery_id <> %(delivery_id)s::uuid AND (r.token IS NULL OR r.next_at <= to_timestamp(%(now)s))
), behind AS (
    UPDATE webhook_deliveries n SET next_at = to_timestamp(%(now)s)
    FROM done
    WHERE NOT EXISTS (SELECT FROM gone) AND done.ended_at IS NOT NULL AND n.token IS NULL AND n.ended_at IS NULL AND n.delivery_id = (
        SELECT f.delivery_id FROM webhook_deliveries f
        WHERE f.webhook_id = done.webhook_id AND f.task_id = done.task_id AND f.ended_at IS NULL AND f.seq > done.seq
        ORDER BY f.seq LIMIT 1)
), told AS (
    UPDATE webhooks w
    SET version = w.version + 1,
        failures = CASE WHEN %(failed)s THEN w.failures + 1 ELSE 0 END,
        failing_since = CASE WHEN %(failed)s THEN coalesce(w.failing_since, to_timestamp(%(now)s)) END,
        held_until = to_timestamp(%(held_until)s::float8),
        due_at = greatest(to_timestamp(%(held_until)s::float8), to_timestamp(%(now)s)),
        status = CASE WHEN w.status = 'ACTIVE' AND w.place IS NOT NULL AND (%(gone)s OR %(failed)s AND
                           w.failing_since <= to_timestamp(%(now)s - %(disabled_after_s)s)) THEN 'DISABLED'
                      ELSE w.status END,
        reason = CASE WHEN w.status <> 'ACTIVE' OR w.place IS NULL THEN w.reason WHEN %(gone)s THEN %(gone_reason)s
                      WHEN %(failed)s AND w.failing_since <= to_timestamp(%(now)s - %(disabled_after_s)s)
                      THEN %(silent_reason)s END
    FROM done
    WHERE w.webhook_id = done.webhook_id
    RETURNING w.status
)
SELECT (SELECT status::text FROM told) FROM done

-- name: give_up_old
-- WAITING -> GIVEN_UP for what waited too long, whatever its webhook's state is.
WITH old AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries
    WHERE delivery_id < %(before_id)s::uuid AND ended_at IS NULL AND round_at < to_timestamp(%(before)s)
      AND (token IS NULL OR next_at <= to_timestamp(%(now)s))
    ORDER BY delivery_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries d
SET state = 'GIVEN_UP', ended_at = to_timestamp(%(now)s), next_at = NULL, token = NULL
FROM old WHERE d.delivery_id = old.delivery_id
RETURNING d.delivery_id::text

-- name: forget_own_webhooks
-- Those whose task or dag ended long ago; of one that is not there, too.
WITH old AS MATERIALIZED (
    SELECT o.task_id
    FROM task_webhooks o LEFT JOIN tasks t ON t.task_id = o.task_id LEFT JOIN dags g ON g.dag_id = o.task_id
    WHERE o.task_id < %(before_id)s::uuid
      AND (coalesce(t.task_id, g.dag_id) IS NULL
           OR coalesce(t.completed_at, g.completed_at) < to_timestamp(%(before)s))
    ORDER BY o.task_id
    LIMIT %(limit)s
    FOR UPDATE OF o SKIP LOCKED
)
DELETE FROM task_webhooks o USING old WHERE o.task_id = old.task_id
RETURNING o.task_id::text

-- name: forget_receivers
-- Those of tasks' own webhooks that got nothing new for so long that no delivery of theirs is kept. One that is met
-- again at this moment is left alone, or made anew.
WITH old AS MATERIALIZED (
    SELECT webhook_id FROM webhooks WHERE place IS NULL AND updated_at < to_timestamp(%(before)s)
    ORDER BY updated_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM webhooks w USING old WHERE w.webhook_id = old.webhook_id
RETURNING w.webhook_id::text

-- name: forget_old
WITH old AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries WHERE delivery_id < %(before_id)s::uuid ORDER BY delivery_id
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM webhook_deliveries d USING old WHERE d.delivery_id = old.delivery_id
RETURNING d.delivery_id::text
