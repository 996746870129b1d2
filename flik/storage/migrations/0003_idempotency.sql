-- What a request under an idempotency key was answered. The row is written by the statement that stores the tasks
-- of the request, so either both are there or neither.

CREATE TABLE idempotency_keys (
    tenant_id     text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 128),
    key           text        NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint   bytea       NOT NULL CHECK (octet_length(fingerprint) = 32), -- SHA-256 of route and canonical body
    submission_id uuid        NOT NULL, -- the first task's id; tells a repeated statement from a repeated request
    expires_at    timestamptz NOT NULL,
    status        smallint    NOT NULL CHECK (status BETWEEN 200 AND 299),
    headers       json        NOT NULL,
    body          text        NOT NULL, -- byte for byte as it was answered
    PRIMARY KEY (tenant_id, key)
);

-- What has expired, oldest first.
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
