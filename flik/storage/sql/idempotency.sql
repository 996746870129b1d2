-- Answers under idempotency keys, stored with the tasks that they are about. Times are seconds since the epoch.

-- name: insert_keyed
-- The tasks of a submission are stored if its key is free, that is new or expired, and with them its answer. Keys are
-- taken in one order, so that two gateways wait for one another instead of blocking each other; a key that another
-- transaction is taking is waited for. A record of the same submission is that of an earlier try of this statement,
-- whose reply was lost. No key may stand in it twice. What stores the tasks is that of
-- sql/tasks.sql, reading from `winners`; `dags_stored` and `steps_stored` are those of sql/dags.sql.
WITH offered AS (
    SELECT * FROM json_to_recordset(%(records)s::json)
                  AS o(tenant_id text, key text, fingerprint text, submission_id uuid, expires_at float8,
                       status smallint, headers json, body text, tasks json, dags json, steps json)
), won AS (
    INSERT INTO idempotency_keys AS kept
           (tenant_id, key, fingerprint, submission_id, expires_at, status, headers, body)
    SELECT tenant_id, key, decode(fingerprint, 'hex'), submission_id, to_timestamp(expires_at), status, headers, body
    FROM offered
    ORDER BY tenant_id COLLATE "C", key COLLATE "C"
    ON CONFLICT (tenant_id, key) DO UPDATE
       SET fingerprint = EXCLUDED.fingerprint, submission_id = EXCLUDED.submission_id,
           expires_at = EXCLUDED.expires_at, status = EXCLUDED.status, headers = EXCLUDED.headers, body = EXCLUDED.body
       WHERE kept.expires_at <= EXCLUDED.expires_at - make_interval(secs => %(ttl_s)s)
          OR kept.submission_id = EXCLUDED.submission_id
    RETURNING submission_id
), winners AS (
    SELECT offered.tasks, offered.dags, offered.steps FROM won JOIN offered USING (submission_id)
), {storing}, dags_stored AS (
{insert_dags}
), dags_hooked AS (
{insert_dag_webhooks}
), steps_stored AS (
{insert_steps}
)
SELECT submission_id::text FROM won

-- name: find_kept
-- LIMIT keeps the planner from joining by a scan of the whole table: each row is found by primary key.
SELECT w.tenant_id, w.key, encode(k.fingerprint, 'hex'), extract(epoch FROM k.expires_at)::float8,
       k.status, k.headers, k.body
FROM json_to_recordset(%(places)s::json) AS w(tenant_id text, key text),
     LATERAL (SELECT * FROM idempotency_keys AS k WHERE k.tenant_id = w.tenant_id AND k.key = w.key LIMIT 1) AS k

-- name: forget_expired
-- What somebody is replacing at this moment is left alone.
WITH expired AS (
    SELECT tenant_id, key FROM idempotency_keys
    WHERE expires_at <= to_timestamp(%(now)s)
    ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM idempotency_keys USING expired
    WHERE idempotency_keys.tenant_id = expired.tenant_id AND idempotency_keys.key = expired.key
    RETURNING 1
)
SELECT count(*) FROM forgotten
