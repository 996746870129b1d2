-- Webhooks, as their tenants see them. What changes one writes its row of the audit log in the same statement. Rows
-- without a `place` are none: they are receivers of tasks' own webhooks, of which only the deliveries are seen.

-- name: create_webhook
-- (nothing) -> ACTIVE. No row comes back when the tenant has no place left, or another request took it just now.
WITH made AS (
    INSERT INTO webhooks (webhook_id, tenant_id, place, url, kinds, created_at, updated_at, secret)
    SELECT %(webhook_id)s::uuid, %(tenant_id)s, free.place, %(url)s, %(kinds)s::text[], to_timestamp(%(now)s),
           to_timestamp(%(now)s), %(secret)s
    FROM generate_series(1, %(most)s::int) AS free(place)
    WHERE NOT EXISTS (SELECT FROM webhooks w WHERE w.tenant_id = %(tenant_id)s AND w.place = free.place)
    ORDER BY free.place
    LIMIT 1
    ON CONFLICT (tenant_id, place) DO NOTHING
    RETURNING webhooks.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'webhook.created', made.webhook_id::text,
           %(detail)s::jsonb, %(request_id)s::text
    FROM made
)
SELECT webhook_id::text, tenant_id, url, kinds, status::text, reason, extract(epoch FROM created_at)::float8,
       extract(epoch FROM updated_at)::float8, extract(epoch FROM old_secret_until)::float8,
       extract(epoch FROM failing_since)::float8
FROM made

-- name: count_webhooks
SELECT count(*) FROM webhooks WHERE tenant_id = %(tenant_id)s AND place IS NOT NULL

-- name: get_webhook
SELECT webhook_id::text, tenant_id, url, kinds, status::text, reason, extract(epoch FROM created_at)::float8,
       extract(epoch FROM updated_at)::float8, extract(epoch FROM old_secret_until)::float8,
       extract(epoch FROM failing_since)::float8
FROM webhooks
WHERE webhook_id = %(webhook_id)s::uuid AND place IS NOT NULL

-- name: list_webhooks
-- Newest first.
SELECT webhook_id::text, tenant_id, url, kinds, status::text, reason, extract(epoch FROM created_at)::float8,
       extract(epoch FROM updated_at)::float8, extract(epoch FROM old_secret_until)::float8,
       extract(epoch FROM failing_since)::float8
FROM webhooks
WHERE place IS NOT NULL AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(before_id)s::uuid IS NULL OR webhooks.webhook_id < %(before_id)s::uuid)
ORDER BY webhooks.webhook_id DESC
LIMIT %(limit)s

-- name: change_webhook
-- Only what is not NULL is changed. A change of URL or status lets it begin anew: no failures, no hold.
WITH changed AS (
    UPDATE webhooks SET
        url = coalesce(%(url)s::text, url),
        kinds = coalesce(%(kinds)s::text[], kinds),
        status = coalesce(%(status)s::webhook_status, status),
        reason = CASE WHEN %(status)s::text IS NULL THEN reason END,
        updated_at = to_timestamp(%(now)s),
        version = version + 1,
        due_at = greatest(to_timestamp(%(now)s), CASE WHEN %(anew)s THEN NULL ELSE held_until END),
        failures = CASE WHEN %(anew)s THEN 0 ELSE failures END,
        failing_since = CASE WHEN %(anew)s THEN NULL ELSE failing_since END,
        held_until = CASE WHEN %(anew)s THEN NULL ELSE held_until END
    WHERE webhook_id = %(webhook_id)s::uuid
    RETURNING webhooks.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'webhook.changed', changed.webhook_id::text,
           %(detail)s::jsonb, %(request_id)s::text
    FROM changed
)
SELECT webhook_id::text, tenant_id, url, kinds, status::text, reason, extract(epoch FROM created_at)::float8,
       extract(epoch FROM updated_at)::float8, extract(epoch FROM old_secret_until)::float8,
       extract(epoch FROM failing_since)::float8
FROM changed

-- name: rotate_secret
-- The secret becomes the old one, which still signs for a while; the old one of before is gone.
WITH rotated AS (
    UPDATE webhooks SET old_secret = secret, old_secret_until = to_timestamp(%(until)s), secret = %(secret)s,
                        updated_at = to_timestamp(%(now)s)
    WHERE webhook_id = %(webhook_id)s::uuid
    RETURNING webhooks.*
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'webhook.rotated', rotated.webhook_id::text,
           %(detail)s::jsonb, %(request_id)s::text
    FROM rotated
)
SELECT webhook_id::text, tenant_id, url, kinds, status::text, reason, extract(epoch FROM created_at)::float8,
       extract(epoch FROM updated_at)::float8, extract(epoch FROM old_secret_until)::float8,
       extract(epoch FROM failing_since)::float8
FROM rotated

-- name: delete_webhook
WITH deleted AS (
    DELETE FROM webhooks WHERE webhook_id = %(webhook_id)s::uuid RETURNING webhook_id, tenant_id
), noted AS (
    INSERT INTO audit_log (entry_id, at, actor, action, subject, detail, request_id)
    SELECT %(entry_id)s::uuid, to_timestamp(%(now)s), %(actor)s, 'webhook.deleted', deleted.webhook_id::text,
           jsonb_build_object('tenantId', deleted.tenant_id), %(request_id)s::text
    FROM deleted
)
SELECT webhook_id::text FROM deleted

-- name: list_deliveries
-- Newest first.
SELECT delivery_id::text, webhook_id::text, task_id::text, seq, kind, state::text, attempts,
       extract(epoch FROM next_at)::float8, extract(epoch FROM created_at)::float8,
       extract(epoch FROM ended_at)::float8, log
FROM webhook_deliveries d
WHERE d.webhook_id = %(webhook_id)s::uuid
  AND (%(before_id)s::uuid IS NULL OR d.delivery_id < %(before_id)s::uuid)
ORDER BY d.delivery_id DESC
LIMIT %(limit)s

-- name: list_own_deliveries
-- Those of a task's own webhook, newest first.
SELECT d.delivery_id::text, NULL, d.task_id::text, d.seq, d.kind, d.state::text, d.attempts,
       extract(epoch FROM d.next_at)::float8, extract(epoch FROM d.created_at)::float8,
       extract(epoch FROM d.ended_at)::float8, d.log
FROM task_webhooks o JOIN webhook_deliveries d ON d.webhook_id = o.receiver_id AND d.task_id = o.task_id
WHERE o.task_id = %(task_id)s::uuid
  AND (%(before_id)s::uuid IS NULL OR d.delivery_id < %(before_id)s::uuid)
ORDER BY d.delivery_id DESC
LIMIT %(limit)s

-- name: add_ping
-- (nothing) -> WAITING, for an ACTIVE webhook; no row comes back for another.
WITH due AS (
    UPDATE webhooks SET due_at = greatest(to_timestamp(%(now)s), held_until), version = version + 1
    WHERE webhook_id = %(webhook_id)s::uuid AND status = 'ACTIVE'
    RETURNING webhook_id
)
INSERT INTO webhook_deliveries (delivery_id, webhook_id, seq, kind, at, data, created_at, round_at, next_at)
SELECT %(delivery_id)s::uuid, due.webhook_id, 0, %(kind)s, to_timestamp(%(now)s), '{}', to_timestamp(%(now)s),
       to_timestamp(%(now)s), to_timestamp(%(now)s)
FROM due
RETURNING delivery_id::text, webhook_id::text, task_id::text, seq, kind, state::text, attempts,
          extract(epoch FROM next_at)::float8, extract(epoch FROM created_at)::float8,
          extract(epoch FROM ended_at)::float8, log

-- name: redeliver
-- DELIVERED | GIVEN_UP -> WAITING with a whole round of attempts, WAITING -> due now; one that is being sent stays so.
-- It is one of a webhook, or of a task's own webhook: the other id is NULL. A task's own that was gone is told again.
WITH again AS (
    UPDATE webhook_deliveries d
    SET state = 'WAITING', ended_at = NULL, attempts = CASE WHEN d.state = 'WAITING' THEN d.attempts ELSE 0 END,
        round_at = CASE WHEN d.state = 'WAITING' THEN d.round_at ELSE to_timestamp(%(now)s) END,
        next_at = CASE WHEN d.token IS NULL THEN to_timestamp(%(now)s) ELSE d.next_at END
    FROM webhooks w
    WHERE d.delivery_id = %(delivery_id)s::uuid AND w.webhook_id = d.webhook_id AND w.status = 'ACTIVE'
      AND d.webhook_id = coalesce(%(webhook_id)s::uuid,
                                  (SELECT o.receiver_id FROM task_webhooks o
                                   WHERE o.task_id = d.task_id AND o.task_id = %(task_id)s::uuid))
    RETURNING d.*
), due AS (
    UPDATE webhooks SET due_at = least(due_at, greatest(to_timestamp(%(now)s), held_until)), version = version + 1
    WHERE webhook_id IN (SELECT webhook_id FROM again)
), back AS (
    UPDATE task_webhooks o SET gone_at = NULL
    FROM again WHERE o.task_id = again.task_id AND o.receiver_id = again.webhook_id AND o.gone_at IS NOT NULL
)
SELECT delivery_id::text, %(webhook_id)s::text, task_id::text, seq, kind, state::text, attempts,
       extract(epoch FROM next_at)::float8, extract(epoch FROM created_at)::float8,
       extract(epoch FROM ended_at)::float8, log
FROM again

-- name: has_delivery
SELECT 1 FROM webhook_deliveries WHERE delivery_id = %(delivery_id)s::uuid AND webhook_id = %(webhook_id)s::uuid
