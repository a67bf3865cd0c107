-- Background work, written in the transaction that asks for it. `due_at` is when a worker may take a row: the time of the next attempt
-- while it waits, the end of its worker's lease while it runs, and nothing once it is finished. `lease` names the claim: whoever holds
-- another one may change nothing any more.
CREATE TABLE jobs (
    id          uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id     uuid REFERENCES users (id) ON DELETE SET NULL,
    kind        text NOT NULL CHECK (length(kind) BETWEEN 1 AND 60),
    payload     jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempts    integer NOT NULL DEFAULT 0,
    crashes     integer NOT NULL DEFAULT 0,
    due_at      timestamptz DEFAULT clock_timestamp(),
    lease       uuid,
    cancelling  boolean NOT NULL DEFAULT false,
    only_one    text CHECK (length(only_one) BETWEEN 1 AND 200),
    result      jsonb,
    last_error  text CHECK (length(last_error) <= 500),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at  timestamptz,
    finished_at timestamptz,
    CONSTRAINT jobs_waits_or_is_finished CHECK ((due_at IS NULL) = (state IN ('succeeded', 'failed', 'cancelled'))),
    CONSTRAINT jobs_runs_with_a_lease CHECK ((lease IS NOT NULL) = (state = 'running'))
) WITH (fillfactor = 70);
-- Of one name at most one waits or runs.
CREATE UNIQUE INDEX jobs_only_one_key ON jobs (tenant_id, only_one) WHERE only_one IS NOT NULL AND due_at IS NOT NULL;
CREATE INDEX idx_jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX idx_jobs_running ON jobs (tenant_id) WHERE state = 'running';
CREATE INDEX idx_jobs_tenant_time ON jobs (tenant_id, created_at DESC, id DESC);
-- The dead letters of a tenant.
CREATE INDEX idx_jobs_failed ON jobs (tenant_id, created_at DESC, id DESC) WHERE state = 'failed';
CREATE INDEX idx_jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs USING (tenant_id = (SELECT NULLIF(current_setting('tanka.tenant_id', true), '')::uuid));
CREATE POLICY internal ON jobs TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user));
REVOKE DELETE ON jobs FROM tanka_app;

-- Identifiers that sort by time, for rows that the database itself makes.
CREATE FUNCTION uuid7()
RETURNS uuid
LANGUAGE sql VOLATILE
SET search_path = pg_catalog
AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid;
$$;

-- Workers serve all tenants. A claim is one short statement; nothing stays open while work is done. A row whose lease ran out lost its
-- worker: that is counted, and work that has killed its workers too often is given up. Who has enough running waits for the others.
CREATE FUNCTION jobs_claim(kinds text[], most integer, lasting interval, each integer, most_crashes integer)
RETURNS TABLE (id uuid, tenant_id uuid, user_id uuid, kind text, payload jsonb, attempts integer, lease uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT j.id FROM public.jobs j
         WHERE j.due_at <= at AND j.kind = ANY (kinds)
           AND j.tenant_id <> ALL (ARRAY(
               SELECT r.tenant_id FROM public.jobs r WHERE r.state = 'running' AND r.due_at > at
                GROUP BY r.tenant_id HAVING count(*) >= each))
         ORDER BY j.due_at LIMIT most FOR UPDATE SKIP LOCKED
    ), next AS (
        SELECT j.id, CASE
            WHEN j.cancelling THEN 'cancelled'
            WHEN j.state = 'running' AND j.crashes + 1 >= most_crashes THEN 'failed'
            ELSE 'running' END AS state
          FROM public.jobs j JOIN due ON due.id = j.id
    ), moved AS (
        UPDATE public.jobs j SET
            state = next.state,
            crashes = j.crashes + CASE WHEN j.state = 'running' THEN 1 ELSE 0 END,
            attempts = j.attempts + CASE WHEN next.state = 'running' THEN 1 ELSE 0 END,
            due_at = CASE WHEN next.state = 'running' THEN at + lasting END,
            lease = CASE WHEN next.state = 'running' THEN gen_random_uuid() END,
            last_error = CASE WHEN next.state = 'failed' THEN 'its worker ended in the middle too often' ELSE j.last_error END,
            started_at = COALESCE(j.started_at, at),
            finished_at = CASE WHEN next.state <> 'running' THEN at END
          FROM next WHERE next.id = j.id
        RETURNING j.id, j.tenant_id, j.user_id, j.kind, j.payload, j.attempts, j.lease, j.state
    )
    SELECT m.id, m.tenant_id, m.user_id, m.kind, m.payload, m.attempts, m.lease FROM moved m WHERE m.state = 'running';
END $$;

-- How many jobs wait and are late, and for how long the oldest has been; what failed stays until it is swept.
CREATE FUNCTION jobs_backlog()
RETURNS TABLE (due bigint, oldest double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp() - min(d.due_at)), 0)::double precision
      FROM (SELECT j.due_at FROM public.jobs j WHERE j.due_at <= clock_timestamp() ORDER BY j.due_at LIMIT 10000) d;
END $$;

-- What ended well is kept for a week, what failed for 30 days.
CREATE FUNCTION maintenance_sweep_jobs(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.jobs WHERE ctid = ANY (ARRAY(
        SELECT j.ctid FROM public.jobs j
         WHERE j.finished_at < clock_timestamp() - interval '7 days'
           AND (j.state <> 'failed' OR j.finished_at < clock_timestamp() - interval '30 days') LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

REVOKE ALL ON FUNCTION jobs_claim(text[], integer, interval, integer, integer), jobs_backlog(), maintenance_sweep_jobs(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION jobs_claim(text[], integer, interval, integer, integer), jobs_backlog(), maintenance_sweep_jobs(integer)
    TO tanka_app;
