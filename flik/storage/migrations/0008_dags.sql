-- Dags: graphs of tasks. A step is a task like any other, PENDING until its parents have completed; what makes it a
-- step is in dag_steps. Who moves a step locks the row of its dag first, and with the move goes what follows from it
-- (flik/domain/dag/progress.py), in one transaction.

ALTER TABLE tasks ADD COLUMN dag_id uuid;            -- of a step

CREATE TYPE dag_status AS ENUM ('RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED');

CREATE TABLE dags (
    dag_id        uuid        PRIMARY KEY,           -- UUIDv7, made by the gateway
    tenant_id     text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 128),
    priority      smallint    NOT NULL CHECK (priority BETWEEN 0 AND 2),
    region        text        NOT NULL CHECK (char_length(region) BETWEEN 1 AND 32),
    status        dag_status  NOT NULL DEFAULT 'RUNNING',
    round         smallint    NOT NULL DEFAULT 1,    -- counts up when it is resumed
    seq           integer     NOT NULL DEFAULT 1,    -- of the latest event
    created_at    timestamptz NOT NULL,
    deadline_at   timestamptz,                       -- no step starts later
    completed_at  timestamptz,
    error_code    text,
    error_message text,
    error_step    text,                              -- the step that is to blame
    metadata      jsonb,
    request_id    text,
    trace_id      text,
    CONSTRAINT completed_iff_over CHECK ((completed_at IS NULL) = (status = 'RUNNING')),
    CONSTRAINT failed_says_why CHECK ((error_code IS NOT NULL) = (status = 'FAILED'))
) WITH (fillfactor = 75);

-- A tenant's dags, newest first.
CREATE INDEX dags_of_tenant ON dags (tenant_id, dag_id DESC);

CREATE TABLE dag_steps (
    task_id        uuid       PRIMARY KEY,
    dag_id         uuid       NOT NULL,
    place          smallint   NOT NULL CHECK (place BETWEEN 0 AND 99),  -- in the caller's list
    round          smallint   NOT NULL DEFAULT 1,    -- of the dag, in which it began
    current        boolean    NOT NULL DEFAULT true, -- false: another task took its place when the dag was resumed
    step_id        text       NOT NULL CHECK (char_length(step_id) BETWEEN 1 AND 64),
    parents        smallint[] NOT NULL,              -- places, in the caller's order
    on_failure     text       NOT NULL CHECK (on_failure IN ('fail', 'skip')),
    start_within_s float8,                           -- of its release
    waited         boolean    NOT NULL,              -- it began as PENDING
    reuse          boolean    NOT NULL DEFAULT false, -- it may take what an earlier run made
    released_at    timestamptz,                      -- when it became QUEUED
    ended_seq      integer,                          -- the number of the dag's event that tells its end
    CONSTRAINT released_has_waited CHECK (released_at IS NULL OR waited)
) WITH (fillfactor = 75);

CREATE UNIQUE INDEX dag_steps_of_dag ON dag_steps (dag_id, place, round);

-- What steps made, by a digest of all that went into it.
CREATE TABLE memos (
    tenant_id text  NOT NULL,
    key       bytea NOT NULL CHECK (octet_length(key) = 32),
    task_id   uuid  NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

-- The ends of rounds before the last one, and when the next one began: with them a dag's log is whole.
CREATE TABLE dag_rounds (
    dag_id        uuid        NOT NULL,
    round         smallint    NOT NULL,
    ended_seq     integer     NOT NULL,              -- the event after it tells that the dag was resumed
    ended_at      timestamptz NOT NULL,
    error_code    text        NOT NULL,
    error_message text        NOT NULL,
    error_step    text        NOT NULL,
    resumed_at    timestamptz NOT NULL,
    PRIMARY KEY (dag_id, round)
);
