-- Who may do what, who did what: operators of the platform, settings, invitations, the audit log and the log of changes.

-- Operators of the platform are named by `tanka-api admin`, which connects as the owner; no request can make one, because the
-- application may not write the column.
ALTER TABLE users ADD COLUMN is_operator boolean NOT NULL DEFAULT false;
GRANT SELECT (is_operator) ON users TO tanka_app;

-- Shown to the person who owns the session, to recognise it.
ALTER TABLE sessions ADD COLUMN user_agent text CHECK (length(user_agent) <= 300), ADD COLUMN address text CHECK (length(address) <= 64);

-- One row for each person who ever changed a setting.
CREATE TABLE user_settings (
    user_id             uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    tenant_id           uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    locale              text NOT NULL CHECK (length(locale) BETWEEN 2 AND 35),
    timezone            text NOT NULL CHECK (length(timezone) BETWEEN 1 AND 64),
    theme               text NOT NULL CHECK (theme IN ('system', 'light', 'dark')),
    email_notifications boolean NOT NULL,
    updated_at          timestamptz NOT NULL DEFAULT now()
);

-- An invitation is good once; only the keyed hash of its token is stored.
CREATE TABLE invitations (
    id          uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    invited_by  uuid REFERENCES users (id) ON DELETE SET NULL,
    email       text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    role        text NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    token_hash  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    accepted_at timestamptz,
    CONSTRAINT invitations_token_hash_key UNIQUE (token_hash)
);
CREATE INDEX idx_invitations_tenant ON invitations (tenant_id, created_at DESC, id DESC);
CREATE INDEX idx_invitations_expires ON invitations (expires_at);

-- Security events. Nobody changes or deletes a row; `user_id` is the person it is about, `actor_id` who did it.
CREATE TABLE audit_logs (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id    uuid,
    actor_id   uuid,
    event_type text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 60),
    address    text CHECK (length(address) <= 64),
    detail     text CHECK (length(detail) <= 1000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_audit_user_time ON audit_logs (user_id, created_at DESC, id DESC);
CREATE INDEX idx_audit_tenant_time ON audit_logs (tenant_id, created_at DESC, id DESC);
-- The type alone would be read over all tenants, below a policy that then throws most of it away.
CREATE INDEX idx_audit_event_type ON audit_logs (tenant_id, event_type, created_at DESC, id DESC);
REVOKE UPDATE, DELETE ON audit_logs FROM tanka_app;

-- Changes of data, written with them. The b-tree serves a tenant's list; the BRIN index on time alone serves the clean-up (a BRIN
-- index with the tenant in it would be worthless, because tenants are spread over all pages).
CREATE TABLE activity_logs (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id    uuid,
    action     text NOT NULL CHECK (length(action) BETWEEN 1 AND 60),
    subject_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_activity_tenant_time ON activity_logs (tenant_id, created_at DESC, id DESC);
CREATE INDEX idx_activity_logs_time ON activity_logs USING brin (created_at);
REVOKE UPDATE, DELETE ON activity_logs FROM tanka_app;

-- People whose rights changed, for the caches of all processes. The transaction's number orders rows so that none is missed: a reader
-- asks for everything from the oldest transaction on that was still open when it last looked.
CREATE TABLE access_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_access_changes_xid ON access_changes (xid);
CREATE INDEX idx_access_changes_time ON access_changes USING brin (changed_at);
REVOKE UPDATE, DELETE ON access_changes FROM tanka_app;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['user_settings', 'invitations', 'audit_logs', 'activity_logs', 'access_changes']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['invitations', 'activity_logs', 'access_changes']
    LOOP
        EXECUTE format(
            'CREATE POLICY internal ON %I TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user))', name);
    END LOOP;
END $$;

-- As auth_find_session, with whether the person operates the platform. The older function stays for the release before.
CREATE FUNCTION auth_find_access(wanted_hash bytea)
RETURNS TABLE (session_id uuid, user_id uuid, tenant_id uuid, role text, is_operator boolean, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.user_id, s.tenant_id, u.role, u.is_operator, s.access_expires_at
      FROM public.sessions s JOIN public.users u ON u.id = s.user_id
     WHERE s.access_hash = wanted_hash AND s.revoked_at IS NULL AND s.access_expires_at > clock_timestamp() AND u.is_active;
END $$;

-- An open invitation by the hash of its token.
CREATE FUNCTION auth_find_invitation(wanted_hash bytea)
RETURNS TABLE (id uuid, tenant_id uuid, email text, role text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT i.id, i.tenant_id, i.email, i.role FROM public.invitations i
     WHERE i.token_hash = wanted_hash AND i.accepted_at IS NULL AND i.expires_at > clock_timestamp();
END $$;

-- People whose rights changed in transactions from `since` on, and from where the next look has to start.
CREATE FUNCTION auth_access_changes(since bigint)
RETURNS TABLE (horizon bigint, users uuid[])
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           COALESCE((SELECT array_agg(DISTINCT c.user_id) FROM public.access_changes c WHERE c.xid >= since), '{}');
END $$;

-- Removes a bounded batch of what is old: changes of access after a day, activity after 90 days, invitations 30 days after their end.
-- The audit log is kept.
CREATE FUNCTION maintenance_sweep_identity(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint := 0;
    part bigint;
BEGIN
    DELETE FROM public.access_changes WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM public.access_changes c WHERE c.changed_at < clock_timestamp() - interval '1 day' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.activity_logs WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM public.activity_logs a WHERE a.created_at < clock_timestamp() - interval '90 days' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.invitations WHERE ctid = ANY (ARRAY(
        SELECT i.ctid FROM public.invitations i WHERE i.expires_at < clock_timestamp() - interval '30 days' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN gone + part;
END $$;

REVOKE ALL ON FUNCTION auth_find_access(bytea), auth_find_invitation(bytea), auth_access_changes(bigint),
    maintenance_sweep_identity(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_find_access(bytea), auth_find_invitation(bytea), auth_access_changes(bigint),
    maintenance_sweep_identity(integer) TO tanka_app;
