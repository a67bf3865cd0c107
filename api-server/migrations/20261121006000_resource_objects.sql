-- Where the chunks of a file are: beside it, in resource_chunks, or each an object of an S3-compatible store, at
-- <prefix><tenant>/<file>/<place>. What is written goes where the configuration says; what is there stays where it is.
ALTER TABLE resources ADD COLUMN stored_in text NOT NULL DEFAULT 'postgres' CHECK (stored_in IN ('postgres', 's3'));

-- Objects of files that are gone, however that happened. A store takes no part in a transaction, so they are deleted after it.
CREATE TABLE object_garbage (
    folder text PRIMARY KEY,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
CREATE INDEX idx_object_garbage_due ON object_garbage (due_at);
REVOKE ALL ON object_garbage FROM tanka_app;

CREATE FUNCTION object_of_resource()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    -- An upload that failed may have a request under way to the store, for as long as one may take.
    INSERT INTO public.object_garbage (folder, due_at)
    VALUES (OLD.tenant_id || '/' || OLD.id || '/',
            clock_timestamp() + CASE WHEN OLD.is_ready THEN interval '0' ELSE interval '1 minute' END)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER object_of_resource AFTER DELETE ON resources FOR EACH ROW WHEN (OLD.stored_in = 's3')
    EXECUTE FUNCTION object_of_resource();

-- A claim lasts for a while; a process that dies leaves it to the next one.
CREATE FUNCTION object_garbage_claim(most integer, lease interval)
RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
    UPDATE public.object_garbage g SET due_at = clock_timestamp() + lease
     WHERE g.folder IN (SELECT d.folder FROM public.object_garbage d WHERE d.due_at <= clock_timestamp()
                         ORDER BY d.due_at LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING g.folder
$$;

CREATE FUNCTION object_garbage_done(folders text[])
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
    DELETE FROM public.object_garbage g WHERE g.folder = ANY (folders)
$$;
REVOKE ALL ON FUNCTION object_garbage_claim(integer, interval), object_garbage_done(text[]), object_of_resource() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION object_garbage_claim(integer, interval), object_garbage_done(text[]) TO tanka_app;
