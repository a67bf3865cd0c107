-- What a person copies from where: one row for each source and person, with how far it has come. The token of the source is sealed with a
-- key that follows from the pepper.
CREATE TABLE sync_sources (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    source       text NOT NULL CHECK (length(source) BETWEEN 3 AND 2200),
    target       text NOT NULL CHECK (length(target) BETWEEN 8 AND 60),
    workroom_id  uuid REFERENCES workrooms (id) ON DELETE CASCADE,
    connector    jsonb NOT NULL,
    sealed_token bytea CHECK (length(sealed_token) <= 600),
    is_default   boolean NOT NULL DEFAULT false,
    progress     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT sync_sources_person_source_key UNIQUE (tenant_id, user_id, source, target)
);
CREATE UNIQUE INDEX sync_sources_default_key ON sync_sources (user_id) WHERE is_default;

-- One row for each run. Its id is that of the job, whose state it follows by a trigger, so that no way of ending a job can be forgotten.
CREATE TABLE sync_records (
    id          uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    source_id   uuid REFERENCES sync_sources (id) ON DELETE SET NULL,
    source      text NOT NULL,
    target      text NOT NULL,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    records     integer NOT NULL DEFAULT 0,
    error       text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE INDEX idx_sync_source_target ON sync_records (tenant_id, source, target, created_at DESC);
CREATE INDEX idx_sync_status ON sync_records (tenant_id, status, created_at DESC, id DESC);
CREATE INDEX idx_sync_created_at ON sync_records (tenant_id, created_at DESC, id DESC);
CREATE INDEX idx_sync_partial ON sync_records (tenant_id, source) WHERE status = 'pending';

-- Which record of a source became which memory or message, and from what content: a record that comes again unchanged writes nothing.
CREATE TABLE sync_items (
    source_id   uuid NOT NULL REFERENCES sync_sources (id) ON DELETE CASCADE,
    external_id text NOT NULL CHECK (length(external_id) BETWEEN 1 AND 512),
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    written_id  uuid NOT NULL,
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (source_id, external_id)
);

CREATE TABLE schedules (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    source_id  uuid NOT NULL REFERENCES sync_sources (id) ON DELETE CASCADE,
    cron       text NOT NULL CHECK (length(cron) BETWEEN 5 AND 100),
    timezone   text NOT NULL CHECK (length(timezone) BETWEEN 1 AND 64),
    next_at    timestamptz,
    last_task  uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX idx_schedules_tenant ON schedules (tenant_id, created_at DESC, id DESC);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sync_sources', 'sync_records', 'sync_items', 'schedules']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['sync_sources', 'sync_records', 'schedules']
    LOOP
        EXECUTE format(
            'CREATE POLICY internal ON %I TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user))', name);
    END LOOP;
END $$;

CREATE FUNCTION sync_of_job()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, public
AS $$
BEGIN
    UPDATE public.sync_records SET
        status = CASE NEW.state WHEN 'queued' THEN 'pending' ELSE NEW.state END,
        error = NEW.last_error, finished_at = NEW.finished_at
     WHERE id = NEW.id;
    IF NEW.state IN ('succeeded', 'failed') THEN
        PERFORM public.webhook_enqueue(NEW.tenant_id, 'sync.' || NEW.state, public.uuid7(), clock_timestamp(), (
            SELECT jsonb_build_object('id', r.id, 'source', r.source, 'target', r.target, 'records', r.records, 'user_id', r.user_id)
              FROM public.sync_records r WHERE r.id = NEW.id));
    END IF;
    RETURN NULL;
END $$;
-- A sync that is given up when it is claimed is told of in the owner's name.
CREATE POLICY internal ON webhooks TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user));
CREATE TRIGGER sync_of_job AFTER UPDATE OF state ON jobs FOR EACH ROW
    WHEN (NEW.kind = 'sync' AND OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION sync_of_job();

-- Schedules of all tenants that are due, locked until the transaction ends; another process skips them.
CREATE FUNCTION schedules_due(most integer)
RETURNS TABLE (id uuid, cron text, timezone text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.id, s.cron, s.timezone FROM public.schedules s WHERE s.next_at <= clock_timestamp()
     ORDER BY s.next_at LIMIT most FOR UPDATE SKIP LOCKED;
END $$;

-- Starts the sync of a schedule, unless one of the same source waits or runs, or its person is locked out; and notes when it is due next.
CREATE FUNCTION schedule_fire(schedule uuid, job uuid, next timestamptz)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    fired boolean;
BEGIN
    WITH found AS (
        SELECT s.tenant_id, s.user_id, s.source_id, o.source, o.target
          FROM public.schedules s
          JOIN public.sync_sources o ON o.id = s.source_id
          JOIN public.users u ON u.id = s.user_id
         WHERE s.id = schedule AND u.is_active
    ), queued AS (
        INSERT INTO public.jobs (id, tenant_id, user_id, kind, payload, only_one)
        SELECT job, f.tenant_id, f.user_id, 'sync', jsonb_build_object('source_id', f.source_id), 'sync:' || f.source_id FROM found f
        ON CONFLICT (tenant_id, only_one) WHERE only_one IS NOT NULL AND due_at IS NOT NULL DO NOTHING
        RETURNING jobs.id
    )
    INSERT INTO public.sync_records (id, tenant_id, user_id, source_id, source, target)
    SELECT q.id, f.tenant_id, f.user_id, f.source_id, f.source, f.target FROM found f, queued q;
    fired := FOUND;
    UPDATE public.schedules s SET next_at = next, last_task = CASE WHEN fired THEN job ELSE s.last_task END WHERE s.id = schedule;
    RETURN fired;
END $$;

-- Runs are kept for 90 days.
CREATE FUNCTION maintenance_sweep_syncs(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.sync_records WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM public.sync_records r WHERE r.finished_at < clock_timestamp() - interval '90 days' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

REVOKE ALL ON FUNCTION schedules_due(integer), schedule_fire(uuid, uuid, timestamptz), maintenance_sweep_syncs(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION schedules_due(integer), schedule_fire(uuid, uuid, timestamptz), maintenance_sweep_syncs(integer) TO tanka_app;
