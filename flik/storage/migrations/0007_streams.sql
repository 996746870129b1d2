-- Streams that callers start or join by a name of their own. The row is written by the statement that stores the
-- stream's task, so that however many callers start a stream at one moment, there is one task.

CREATE TABLE streams (
    tenant_id  text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 128),
    key        text        NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 1100),
    task_id    uuid        NOT NULL,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

-- What has been over for long, oldest first.
CREATE INDEX streams_age ON streams (started_at);
