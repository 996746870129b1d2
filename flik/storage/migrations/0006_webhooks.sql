-- Webhooks: where tenants want to hear of their tasks, what is on its way there, and what came of it.
--
-- The statements that move a task write webhook_outbox, for tenants that have a webhook. A sender turns its rows into
-- deliveries, one for each webhook that wants the event, claims them and sends them (flik/storage/sql/webhooks.sql).

CREATE TYPE webhook_status AS ENUM ('ACTIVE', 'PAUSED', 'DISABLED');

CREATE TABLE webhooks (
    webhook_id       uuid           PRIMARY KEY,  -- UUIDv7
    tenant_id        text           NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 128),
    place            smallint       NOT NULL CHECK (place BETWEEN 1 AND 10),  -- with its key: a tenant has ten at most
    url              text           NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2200),
    kinds            text[]         NOT NULL CHECK (cardinality(kinds) BETWEEN 1 AND 32),
    status           webhook_status NOT NULL DEFAULT 'ACTIVE',
    reason           text           CHECK (char_length(reason) <= 200),
    created_at       timestamptz    NOT NULL,
    updated_at       timestamptz    NOT NULL,

    -- Secrets are needed to sign with, so they are here as they are. No query but that of a sender reads them.
    secret           text           NOT NULL,
    old_secret       text,
    old_secret_until timestamptz,

    -- What senders know. Every writer of these counts `version` up: who decides by what it read shows the version.
    version          bigint         NOT NULL DEFAULT 0,
    due_at           timestamptz,                 -- nothing is to be sent before; NULL: nothing is
    failures         integer        NOT NULL DEFAULT 0,  -- in a row
    failing_since    timestamptz,
    held_until       timestamptz,

    UNIQUE (tenant_id, place),                    -- also finds whether a tenant has a webhook at all
    CONSTRAINT old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT disabled_says_why CHECK (status <> 'DISABLED' OR reason IS NOT NULL)
) WITH (fillfactor = 70);

CREATE INDEX webhooks_due ON webhooks (due_at) WHERE status = 'ACTIVE' AND due_at IS NOT NULL;

CREATE TABLE webhook_outbox (
    task_id   uuid        NOT NULL,
    seq       integer     NOT NULL CHECK (seq > 0),
    tenant_id text        NOT NULL,
    kind      text        NOT NULL,
    at        timestamptz NOT NULL,
    data      jsonb       NOT NULL,
    PRIMARY KEY (task_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TYPE delivery_state AS ENUM ('WAITING', 'DELIVERED', 'GIVEN_UP');

-- There is no foreign key: when a webhook is deleted, its deliveries stay, seen by nobody, until they are a week old.
CREATE TABLE webhook_deliveries (
    delivery_id uuid           PRIMARY KEY,       -- UUIDv7
    webhook_id  uuid           NOT NULL,
    task_id     uuid,                             -- NULL: a ping
    seq         integer        NOT NULL,
    kind        text           NOT NULL,
    at          timestamptz    NOT NULL,          -- when it happened
    data        jsonb          NOT NULL,
    state       delivery_state NOT NULL DEFAULT 'WAITING',
    attempts    smallint       NOT NULL DEFAULT 0,
    created_at  timestamptz    NOT NULL,
    round_at    timestamptz    NOT NULL,          -- when its round of attempts began
    next_at     timestamptz,                      -- not sent before; of one that is being sent, when its lease ends
    token       uuid,                             -- random; of whoever sends it now
    ended_at    timestamptz,
    log         jsonb          NOT NULL DEFAULT '[]',  -- the latest attempts
    UNIQUE (webhook_id, task_id, seq),
    CONSTRAINT waiting_has_no_end CHECK ((ended_at IS NULL) = (state = 'WAITING')),
    CONSTRAINT waiting_is_due CHECK ((next_at IS NOT NULL) = (state = 'WAITING')),
    CONSTRAINT token_while_waiting CHECK (token IS NULL OR state = 'WAITING'),
    CONSTRAINT log_is_bounded CHECK (jsonb_array_length(log) <= 20)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- What is to be sent, by webhook.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_at) WHERE ended_at IS NULL;

-- What of a task is not over, in order.
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (webhook_id, task_id, seq) WHERE ended_at IS NULL;

-- What waits, oldest first.
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (delivery_id) WHERE ended_at IS NULL;

-- A webhook's deliveries, newest first.
CREATE INDEX webhook_deliveries_listed ON webhook_deliveries (webhook_id, delivery_id DESC);
