-- What the server itself needs: events for sockets, answers kept for repeated requests, and the heartbeat of replication.

-- One row for each channel that ever had an event. Its row lock orders the writers of a channel, so positions have no gaps
-- and become visible in their order. A new epoch means that positions started again.
CREATE TABLE channels (
    name          text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 100),
    tenant_id     uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    epoch         uuid NOT NULL DEFAULT gen_random_uuid(),
    last_position bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- Written in the transaction of the change that it tells about; read for resuming, and instead of Redis when that is away.
CREATE TABLE events (
    channel    text NOT NULL REFERENCES channels (name) ON DELETE CASCADE,
    position   bigint NOT NULL,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id         uuid NOT NULL,
    kind       text NOT NULL,
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, position)
);
CREATE INDEX idx_events_created ON events USING brin (created_at);

CREATE TABLE idempotency_keys (
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key         text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL,
    response    text,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, key)
);
CREATE INDEX idx_idempotency_expires ON idempotency_keys (expires_at);

-- Row 1 beats several times a second; a replica is as old as the beat that it has replayed, even when its stream is cut.
-- Row 2 is written by the deep health check.
CREATE TABLE replication_heartbeat (
    id       smallint PRIMARY KEY CHECK (id IN (1, 2)),
    beat_at  timestamptz NOT NULL,
    timeline integer NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000);
INSERT INTO replication_heartbeat (id, beat_at, timeline) VALUES (1, '-infinity', 0), (2, '-infinity', 0);
REVOKE INSERT, DELETE ON replication_heartbeat FROM tanka_app;
