-- Who may use Flik: tenants with their limits, the keys that speak for them, and what operators did.
--
-- The gateways hold rows of tenants and api_keys in memory for 4 s at most (flik/pipeline/directory.py);
-- so a key that is revoked here opens nothing 5 s later.

CREATE TABLE tenants (
    tenant_id         text        PRIMARY KEY CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$'),
    name              text        NOT NULL DEFAULT '' CHECK (char_length(name) <= 200),
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,

    -- Limits; NULL: the service's default. An infinite or missing number is no limit anybody can have meant.
    rate_per_s        double precision CHECK (rate_per_s > 0 AND rate_per_s <= 1000000000),
    burst             integer     CHECK (burst BETWEEN 1 AND 1000000000),
    max_running       integer     CHECK (max_running BETWEEN 0 AND 1000000000),
    max_queued        integer     CHECK (max_queued BETWEEN 0 AND 1000000000),
    weight            integer     CHECK (weight BETWEEN 1 AND 1000000),
    highest_priority  smallint    CHECK (highest_priority BETWEEN 0 AND 2),
    max_payload_bytes integer     CHECK (max_payload_bytes BETWEEN 2 AND 262144)  -- `{}` is two bytes
);

CREATE TYPE key_scope AS ENUM ('submit', 'read', 'admin');

CREATE TABLE api_keys (
    key_id       uuid        PRIMARY KEY,               -- UUIDv7: keys are listed in the order in which they were made
    tenant_id    text        NOT NULL REFERENCES tenants,
    digest       bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),  -- SHA-256; the key itself is nowhere
    prefix       text        NOT NULL CHECK (char_length(prefix) BETWEEN 1 AND 16),
    name         text        NOT NULL DEFAULT '' CHECK (char_length(name) <= 200),
    scopes       key_scope[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,                           -- to the minute

    CONSTRAINT key_lives_before_it_expires CHECK (expires_at > created_at)
);

CREATE INDEX api_keys_of_tenant ON api_keys (tenant_id, key_id DESC);

-- Written in the statement that does what it tells of, never changed afterwards.
CREATE TABLE audit_log (
    entry_id   uuid        PRIMARY KEY,                 -- UUIDv7
    at         timestamptz NOT NULL,
    actor      text        NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 300),
    action     text        NOT NULL CHECK (action ~ '^[a-z]+\.[a-z]+$'),
    subject    text        NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 300),
    detail     jsonb       NOT NULL,
    request_id text
);
