-- Tasks, the attempts to run them, and the artifacts they made.
--
-- The row of a task is the truth about it. Its state machine is the one drawn in
-- flik/domain/task.py; the CHECKs below hold what each state means, and every UPDATE in
-- flik/storage/sql names the state it expects.

CREATE TYPE task_status AS ENUM
    ('PENDING', 'QUEUED', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED');

CREATE TABLE tasks (
    task_id           uuid        PRIMARY KEY,          -- UUIDv7, made by the gateway: ids are in order of submission
    tenant_id         text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 128),
    task_type         text        NOT NULL CHECK (task_type ~ '^[A-Z][A-Z0-9_]{0,31}$'),
    priority          smallint    NOT NULL CHECK (priority BETWEEN 0 AND 2),
    region            text        NOT NULL CHECK (char_length(region) BETWEEN 1 AND 32),
    status            task_status NOT NULL,
    attempt           smallint    NOT NULL DEFAULT 0,   -- the latest attempt; 0: none yet
    max_attempts      smallint    NOT NULL,             -- grows by a round when a caller retries
    created_at        timestamptz NOT NULL,
    available_at      timestamptz NOT NULL,             -- not granted before
    start_deadline_at timestamptz,                      -- EXPIRED when not granted by then
    started_at        timestamptz,                      -- of the latest attempt
    completed_at      timestamptz,                      -- when it became terminal
    lease_token       uuid,                             -- random; whoever settles must show it
    worker_id         text,                             -- who had the latest attempt
    version           text,                             -- and which model version it was
    error_code        text,
    error_message     text,
    payload           jsonb       NOT NULL,
    result            jsonb,                            -- {"text": ..., "metadata": {...}}
    request_id        text,
    trace_id          text,

    CONSTRAINT attempts_are_counted CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT lease_iff_processing CHECK ((lease_token IS NOT NULL) = (status = 'PROCESSING')),
    CONSTRAINT processing_has_started CHECK
        (status <> 'PROCESSING' OR (started_at IS NOT NULL AND worker_id IS NOT NULL AND attempt > 0)),
    CONSTRAINT completed_iff_terminal CHECK
        ((completed_at IS NOT NULL) = (status IN ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED'))),
    CONSTRAINT result_iff_completed CHECK ((result IS NOT NULL) = (status = 'COMPLETED')),
    CONSTRAINT completed_has_run CHECK (status <> 'COMPLETED' OR attempt > 0),
    CONSTRAINT failed_says_why CHECK (status <> 'FAILED' OR error_code IS NOT NULL)
) WITH (
    fillfactor = 65,  -- room for the row's next version beside it: a grant changes no indexed column (HOT)
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.05
);

-- No index names `status`, so that a grant touches none of them: it is a HOT update.

-- What is not finished: paging a backlog, scanning for tasks nobody announced, rebuilding the queue.
CREATE INDEX tasks_live ON tasks (region, task_type, priority, tenant_id, task_id) WHERE completed_at IS NULL;

-- Start deadlines that can still pass.
CREATE INDEX tasks_start_deadline ON tasks (region, start_deadline_at)
    WHERE completed_at IS NULL AND start_deadline_at IS NOT NULL;

-- A tenant's tasks, newest first.
CREATE INDEX tasks_of_tenant ON tasks (tenant_id, task_id DESC);

-- Dead letters, newest first.
CREATE INDEX tasks_dead ON tasks (task_id DESC) WHERE completed_at IS NOT NULL AND error_code IS NOT NULL;

CREATE TYPE attempt_outcome AS ENUM ('COMPLETED', 'FAILED', 'LOST', 'TIMED_OUT', 'HANDED_BACK', 'CANCELLED');

-- One row for each grant, written when it ends; while it runs, the task's own row says who has it. There is no
-- foreign key: only the statement that ends an attempt writes here, and retention drops tasks and attempts together.
CREATE TABLE attempts (
    task_id       uuid            NOT NULL,
    lease_token   uuid            NOT NULL,
    attempt       smallint        NOT NULL CHECK (attempt > 0),
    worker_id     text            NOT NULL,
    version       text            NOT NULL,
    started_at    timestamptz     NOT NULL,
    ended_at      timestamptz     NOT NULL,
    outcome       attempt_outcome NOT NULL,
    error_code    text,
    error_message text,
    PRIMARY KEY (task_id, lease_token)
);

CREATE TYPE artifact_status AS ENUM ('STORED');

-- The files of a completed task. Bytes live in the object store under `key`.
CREATE TABLE artifacts (
    task_id      uuid            NOT NULL,
    index        smallint        NOT NULL CHECK (index >= 0),
    status       artifact_status NOT NULL DEFAULT 'STORED',
    key          text            NOT NULL,
    content_type text            NOT NULL,
    size_bytes   bigint          NOT NULL CHECK (size_bytes >= 0),
    sha256       text            NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    width        integer         CHECK (width > 0),
    height       integer         CHECK (height > 0),
    duration_s   double precision CHECK (duration_s >= 0),
    created_at   timestamptz     NOT NULL,
    PRIMARY KEY (task_id, index)
);
