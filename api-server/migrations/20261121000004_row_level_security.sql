-- The wall between tenants. `tanka.tenant_id` is set for one transaction at a time. The sub-select makes it an InitPlan, which
-- is computed once for a statement and lets indexes on tenant_id be used; NULLIF because a setting that was local to an
-- earlier transaction of the session reads as an empty text afterwards.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['users', 'sessions', 'used_refresh_tokens', 'ws_tickets', 'conversations', 'messages',
                                'channels', 'events', 'idempotency_keys']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
END $$;

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants USING (id = (SELECT NULLIF(current_setting('tanka.tenant_id', true), '')::uuid));

-- The few lookups that precede a tenant run in functions of the owner, below. Inside such a function the current user is the
-- owner while the session's user is the caller, and this policy asks for exactly that: a session of the owner itself sees
-- nothing without a tenant either, and the application cannot become the owner.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['users', 'sessions', 'used_refresh_tokens', 'ws_tickets', 'channels', 'events',
                                'idempotency_keys']
    LOOP
        EXECUTE format(
            'CREATE POLICY internal ON %I TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user))', name);
    END LOOP;
END $$;

-- By exact address: at most one row.
CREATE FUNCTION auth_find_login(wanted_email text)
RETURNS TABLE (user_id uuid, tenant_id uuid, password_hash text, is_active boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY SELECT u.id, u.tenant_id, u.password_hash, u.is_active FROM public.users u WHERE u.email_key = wanted_email;
END $$;

-- By the hash of an access token: at most one row. Expired and revoked sessions, and people who were locked out, have none.
CREATE FUNCTION auth_find_session(wanted_hash bytea)
RETURNS TABLE (session_id uuid, user_id uuid, tenant_id uuid, role text, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.user_id, s.tenant_id, u.role, s.access_expires_at
      FROM public.sessions s JOIN public.users u ON u.id = s.user_id
     WHERE s.access_hash = wanted_hash AND s.revoked_at IS NULL AND s.access_expires_at > clock_timestamp() AND u.is_active;
END $$;

-- By the hash of a refresh token, current or already exchanged: whose it is. What may be done with it is decided in the tenant.
CREATE FUNCTION auth_find_refresh(wanted_hash bytea)
RETURNS TABLE (session_id uuid, tenant_id uuid, user_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.tenant_id, s.user_id FROM public.sessions s
     WHERE s.refresh_hash = wanted_hash
        OR s.id = (SELECT t.session_id FROM public.used_refresh_tokens t WHERE t.hash = wanted_hash)
     LIMIT 1;
END $$;

-- Takes a ticket: it works once, for a session that is still good.
CREATE FUNCTION auth_take_ticket(wanted_hash bytea)
RETURNS TABLE (session_id uuid, user_id uuid, tenant_id uuid, role text, expires_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    WITH taken AS (DELETE FROM public.ws_tickets t WHERE t.hash = wanted_hash RETURNING t.session_id, t.expires_at)
    SELECT s.id, s.user_id, s.tenant_id, u.role, s.access_expires_at
      FROM taken
      JOIN public.sessions s ON s.id = taken.session_id
      JOIN public.users u ON u.id = s.user_id
     WHERE taken.expires_at > clock_timestamp() AND s.revoked_at IS NULL AND s.access_expires_at > clock_timestamp()
       AND u.is_active;
END $$;

-- Sockets of many tenants share a process; it asks for all of their channels at once.
CREATE FUNCTION realtime_heads(names text[])
RETURNS TABLE (name text, epoch uuid, last_position bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY SELECT c.name, c.epoch, c.last_position FROM public.channels c WHERE c.name = ANY (names);
END $$;

CREATE FUNCTION realtime_events(wanted text, after bigint, most integer)
RETURNS TABLE ("position" bigint, id uuid, kind text, body text, created_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT e.position, e.id, e.kind, e.body, e.created_at FROM public.events e
     WHERE e.channel = wanted AND e.position > after ORDER BY e.position LIMIT most;
END $$;

-- Removes what has expired, a bounded batch of each at a time. Answers how many rows went.
CREATE FUNCTION maintenance_sweep(history interval, batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint := 0;
    part bigint;
BEGIN
    DELETE FROM public.events WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM public.events e WHERE e.created_at < clock_timestamp() - history LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT k.ctid FROM public.idempotency_keys k WHERE k.expires_at < clock_timestamp() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.ws_tickets WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM public.ws_tickets t WHERE t.expires_at < clock_timestamp() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.sessions WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM public.sessions s WHERE s.refresh_expires_at < clock_timestamp() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN gone + part;
END $$;

REVOKE ALL ON FUNCTION auth_find_login(text), auth_find_session(bytea), auth_find_refresh(bytea), auth_take_ticket(bytea),
    realtime_heads(text[]), realtime_events(text, bigint, integer), maintenance_sweep(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_find_login(text), auth_find_session(bytea), auth_find_refresh(bytea), auth_take_ticket(bytea),
    realtime_heads(text[]), realtime_events(text, bigint, integer), maintenance_sweep(interval, integer) TO tanka_app;
