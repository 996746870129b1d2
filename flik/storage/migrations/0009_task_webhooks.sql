-- Webhooks that tasks bring with them: each is told of its own task and of nothing else.
--
-- Where they lead is known to senders by a row of `webhooks` for each tenant, scheme, host and port, so that a receiver
-- that is dead is held as a whole, however many tasks lead there. It has no `place` and wants no kinds: it is none of
-- the tenant's webhooks, and no event is for it unless a task brought it (flik/storage/sql/deliveries.sql).

ALTER TABLE tasks ADD COLUMN hook_kinds text[];  -- what its own webhook wants to hear of; NULL: it has none

ALTER TABLE dags ADD COLUMN hook_kinds text[];   -- the same, of a dag: its webhook is in task_webhooks under its id

-- There is no foreign key: the statement that stores a task writes its row, and it goes a month after the task's end.
CREATE TABLE task_webhooks (
    task_id     uuid PRIMARY KEY,
    receiver_id uuid NOT NULL,                    -- of the row in webhooks
    url         text NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2200),
    secret      text NOT NULL                     -- as those of webhooks: only the query of a sender reads it
);

-- `webhooks` has ten rows a tenant at most: all of this takes its lock for milliseconds. Rows as the new ones are made
-- by this version only.
-- squawk-ignore ban-drop-not-null
ALTER TABLE webhooks ALTER COLUMN place DROP NOT NULL;
-- squawk-ignore ban-drop-not-null
ALTER TABLE webhooks ALTER COLUMN kinds DROP NOT NULL;
-- squawk-ignore ban-drop-not-null
ALTER TABLE webhooks ALTER COLUMN secret DROP NOT NULL;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE webhooks ADD CONSTRAINT receiver_is_bare CHECK (
    CASE WHEN place IS NULL THEN kinds IS NULL AND secret IS NULL AND old_secret IS NULL AND status = 'ACTIVE'
         ELSE kinds IS NOT NULL AND secret IS NOT NULL END
);

-- Receivers that nothing was sent to for long.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX webhooks_receivers ON webhooks (updated_at) WHERE place IS NULL;
