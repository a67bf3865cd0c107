-- Tenants, their people, and the sessions by which people act.
-- Row-level security is enabled and forced: without `tanka.tenant_id` a query returns nothing, for the owner of the tables too.

CREATE TABLE tenants (
    id         uuid PRIMARY KEY,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- `email_key` is what an account is found by. It is a column, not an index expression, because lower() is not leakproof:
-- below a row-level policy the planner would not use an index on the expression.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    tenant_id     uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    email         text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    email_key     text NOT NULL GENERATED ALWAYS AS (lower(email)) STORED,
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    password_hash text NOT NULL,
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_key UNIQUE (email_key)
);
CREATE INDEX idx_users_tenant_email ON users (tenant_id, email_key);

-- A session is one login. Its tokens are replaced by refreshing; only keyed hashes of them are stored.
CREATE TABLE sessions (
    id                 uuid PRIMARY KEY,
    tenant_id          uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id            uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    access_hash        bytea NOT NULL,
    refresh_hash       bytea NOT NULL,
    access_expires_at  timestamptz NOT NULL,
    refresh_expires_at timestamptz NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    refreshed_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at         timestamptz,
    CONSTRAINT sessions_access_hash_key UNIQUE (access_hash),
    CONSTRAINT sessions_refresh_hash_key UNIQUE (refresh_hash)
);
CREATE INDEX idx_sessions_user_active ON sessions (user_id) WHERE revoked_at IS NULL;
CREATE INDEX idx_sessions_expires ON sessions (refresh_expires_at);

-- Refresh tokens that were exchanged already. One that comes back was stolen, or is a race with its own exchange.
CREATE TABLE used_refresh_tokens (
    hash       bytea PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    used_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_used_refresh_session ON used_refresh_tokens (session_id);

-- Single-use tickets that open a WebSocket.
CREATE TABLE ws_tickets (
    hash       bytea PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX idx_ws_tickets_expires ON ws_tickets (expires_at);
CREATE INDEX idx_ws_tickets_session ON ws_tickets (session_id);

-- Password hashes leave the table through auth_find_login only, one at a time, by exact address.
REVOKE SELECT, UPDATE ON users FROM tanka_app;
GRANT SELECT (id, tenant_id, email, email_key, name, role, is_active, created_at, updated_at),
      UPDATE (email, name, password_hash, role, is_active, updated_at) ON users TO tanka_app;
