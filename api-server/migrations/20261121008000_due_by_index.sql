-- What is due or has expired is found by its index: clock_timestamp() may answer something else for each row, so the planner compares
-- it with every row of the table, while now() is one time for the transaction. Each of these runs in a transaction of its own.

CREATE OR REPLACE FUNCTION maintenance_sweep(history interval, batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint := 0;
    part bigint;
BEGIN
    DELETE FROM public.events WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM public.events e WHERE e.created_at < now() - history LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT k.ctid FROM public.idempotency_keys k WHERE k.expires_at < now() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.ws_tickets WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM public.ws_tickets t WHERE t.expires_at < now() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.sessions WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM public.sessions s WHERE s.refresh_expires_at < now() LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN gone + part;
END $$;

CREATE OR REPLACE FUNCTION maintenance_sweep_identity(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint := 0;
    part bigint;
BEGIN
    DELETE FROM public.access_changes WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM public.access_changes c WHERE c.changed_at < now() - interval '1 day' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.activity_logs WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM public.activity_logs a WHERE a.created_at < now() - interval '90 days' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    gone := gone + part;
    DELETE FROM public.invitations WHERE ctid = ANY (ARRAY(
        SELECT i.ctid FROM public.invitations i WHERE i.expires_at < now() - interval '30 days' LIMIT batch));
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN gone + part;
END $$;

CREATE OR REPLACE FUNCTION embedding_claim(most integer, lease interval)
RETURNS TABLE (memory_id uuid, content text, attempts smallint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT q.memory_id FROM public.embedding_queue q WHERE q.due_at <= now()
         ORDER BY q.due_at LIMIT most FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE public.embedding_queue q SET due_at = clock_timestamp() + lease, attempts = q.attempts + 1
          FROM due WHERE q.memory_id = due.memory_id RETURNING q.memory_id, q.attempts
    )
    SELECT m.id, m.content, c.attempts FROM claimed c JOIN public.memories m ON m.id = c.memory_id;
END $$;

CREATE OR REPLACE FUNCTION jobs_backlog()
RETURNS TABLE (due bigint, oldest double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp() - min(d.due_at)), 0)::double precision
      FROM (SELECT j.due_at FROM public.jobs j WHERE j.due_at <= now() ORDER BY j.due_at LIMIT 10000) d;
END $$;

CREATE OR REPLACE FUNCTION maintenance_sweep_jobs(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.jobs WHERE ctid = ANY (ARRAY(
        SELECT j.ctid FROM public.jobs j
         WHERE j.finished_at < now() - interval '7 days'
           AND (j.state <> 'failed' OR j.finished_at < now() - interval '30 days') LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION maintenance_sweep_deliveries(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.webhook_deliveries WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM public.webhook_deliveries d
         WHERE d.created_at < now() - interval '30 days' AND d.status <> 'pending' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION schedules_due(most integer)
RETURNS TABLE (id uuid, cron text, timezone text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.cron, s.timezone FROM public.schedules s WHERE s.next_at <= now()
     ORDER BY s.next_at LIMIT most FOR UPDATE SKIP LOCKED;
END $$;

CREATE OR REPLACE FUNCTION maintenance_sweep_syncs(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.sync_records WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM public.sync_records r WHERE r.finished_at < now() - interval '90 days' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION maintenance_sweep_resources(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.resources WHERE id = ANY (ARRAY(
        SELECT r.id FROM public.resources r WHERE NOT r.is_ready AND r.created_at < now() - interval '1 hour' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION object_garbage_claim(most integer, lease interval)
RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
    UPDATE public.object_garbage g SET due_at = clock_timestamp() + lease
     WHERE g.folder IN (SELECT d.folder FROM public.object_garbage d WHERE d.due_at <= now()
                         ORDER BY d.due_at LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING g.folder
$$;

CREATE OR REPLACE FUNCTION approximate_claim(lasting interval)
RETURNS TABLE (tenant_id uuid, user_id uuid, model text, lease uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT d.user_id, d.model FROM public.approximate_people d WHERE d.due_at <= now()
         ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE public.approximate_people a SET due_at = clock_timestamp() + lasting, lease = gen_random_uuid()
      FROM due WHERE a.user_id = due.user_id AND a.model = due.model
    RETURNING a.tenant_id, a.user_id, a.model, a.lease;
END $$;
