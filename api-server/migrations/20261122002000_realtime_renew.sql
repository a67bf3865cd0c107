-- A primary may be lost together with the last events that it showed; its successor gives their positions to others. Whoever notices
-- begins a new epoch of the channel, so that clients that saw the lost ones are told when they come back.

CREATE FUNCTION realtime_renew(wanted text, known uuid)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    UPDATE public.channels c SET epoch = gen_random_uuid() WHERE c.name = wanted AND c.epoch = known;
    RETURN FOUND;
END $$;

REVOKE ALL ON FUNCTION realtime_renew(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION realtime_renew(text, uuid) TO tanka_app;
