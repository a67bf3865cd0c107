-- Where a tenant wants to be told. No secret is stored: it follows from the pepper, the id and the number of its rotation.
CREATE TABLE webhooks (
    id               uuid PRIMARY KEY,
    tenant_id        uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    created_by       uuid REFERENCES users (id) ON DELETE SET NULL,
    url              text NOT NULL CHECK (length(url) BETWEEN 8 AND 2048),
    description      text CHECK (length(description) <= 200),
    event_types      text[] NOT NULL CHECK (cardinality(event_types) BETWEEN 1 AND 32),
    is_enabled       boolean NOT NULL DEFAULT true,
    disabled_reason  text CHECK (length(disabled_reason) <= 200),
    secret_version   integer NOT NULL DEFAULT 1,
    previous_until   timestamptz,
    failures         integer NOT NULL DEFAULT 0,
    failing_since    timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_webhooks_tenant ON webhooks (tenant_id, created_at DESC, id DESC);

-- One row for each endpoint and event. Its id is that of the job that delivers it. `message_id` is what receivers recognise it by: it is
-- the same for all attempts, and for a delivery that somebody asks for again.
CREATE TABLE webhook_deliveries (
    id              uuid PRIMARY KEY,
    tenant_id       uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    webhook_id      uuid NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    message_id      uuid NOT NULL,
    event_type      text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 60),
    body            text NOT NULL CHECK (length(body) <= 20000),
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    response_status integer,
    last_error      text CHECK (length(last_error) <= 500),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempted_at    timestamptz
);
CREATE INDEX idx_webhook_delivery_status ON webhook_deliveries (tenant_id, status, created_at DESC, id DESC);
CREATE INDEX idx_webhook_delivery_created ON webhook_deliveries (webhook_id, created_at DESC, id DESC);
CREATE INDEX idx_webhook_delivery_age ON webhook_deliveries USING brin (created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['webhooks', 'webhook_deliveries']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
END $$;
CREATE POLICY internal ON webhook_deliveries TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user));

-- Queues an event for the endpoints of the tenant that want it, in the transaction that the event belongs to and under its policies.
CREATE FUNCTION webhook_enqueue(tenant uuid, wanted text, message uuid, happened timestamptz, data jsonb)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, public
AS $$
DECLARE
    queued bigint;
BEGIN
    WITH wanting AS (
        SELECT public.uuid7() AS id, w.id AS webhook_id FROM public.webhooks w
         WHERE w.tenant_id = tenant AND w.is_enabled AND wanted = ANY (w.event_types)
    ), delivery AS (
        INSERT INTO public.webhook_deliveries (id, tenant_id, webhook_id, message_id, event_type, body)
        SELECT n.id, tenant, n.webhook_id, message, wanted,
               json_build_object('type', wanted, 'timestamp', to_char(happened AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                                 'data', data)::text
          FROM wanting n
        RETURNING id
    )
    INSERT INTO public.jobs (id, tenant_id, kind, payload) SELECT d.id, tenant, 'webhook', '{}' FROM delivery d;
    GET DIAGNOSTICS queued = ROW_COUNT;
    RETURN queued;
END $$;

-- Whatever becomes an event is also told to endpoints. Who manages a tenant does not read what its people write, so only names of things
-- go out, and times and ids. A tenant without endpoints costs one look into an index.
CREATE FUNCTION webhook_of_event()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, public
AS $$
BEGIN
    IF EXISTS (SELECT FROM public.webhooks w
                WHERE w.tenant_id = NEW.tenant_id AND w.is_enabled AND NEW.kind = ANY (w.event_types)) THEN
        PERFORM public.webhook_enqueue(NEW.tenant_id, NEW.kind, NEW.id, NEW.created_at, (
            SELECT COALESCE(jsonb_object_agg(part.key, part.value), '{}') FROM jsonb_each(NEW.body::jsonb) part
             WHERE part.key IN ('id', 'conversation_id', 'workroom_id', 'user_id', 'role', 'created_at')));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_of_event AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION webhook_of_event();

-- Deliveries are kept for 30 days.
CREATE FUNCTION maintenance_sweep_deliveries(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.webhook_deliveries WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM public.webhook_deliveries d
         WHERE d.created_at < clock_timestamp() - interval '30 days' AND d.status <> 'pending' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE ALL ON FUNCTION maintenance_sweep_deliveries(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintenance_sweep_deliveries(integer) TO tanka_app;

-- A delivery whose job was given up or cancelled by somebody else than its worker waits no longer.
CREATE FUNCTION webhook_of_job()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, public
AS $$
BEGIN
    UPDATE public.webhook_deliveries SET status = 'failed', last_error = COALESCE(NEW.last_error, 'cancelled')
     WHERE id = NEW.id AND status = 'pending';
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_of_job AFTER UPDATE OF state ON jobs FOR EACH ROW
    WHEN (NEW.kind = 'webhook' AND NEW.state IN ('failed', 'cancelled') AND OLD.state <> NEW.state)
    EXECUTE FUNCTION webhook_of_job();
