-- Workrooms: rooms that people of a tenant share. Who is a member sees the room and its messages; nobody else does.
CREATE TABLE workrooms (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_by uuid REFERENCES users (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Changes with each message, so it is in no index: a person's rooms are few, and are sorted when they are listed.
    active_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX idx_workrooms_tenant ON workrooms (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE workroom_members (
    workroom_id uuid NOT NULL REFERENCES workrooms (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    role        text NOT NULL CHECK (role IN ('owner', 'member')),
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workroom_id, user_id)
);
CREATE INDEX idx_workroom_members_user ON workroom_members (user_id, workroom_id);
CREATE INDEX idx_workroom_members_joined ON workroom_members (workroom_id, joined_at DESC, user_id DESC);

CREATE TABLE workroom_messages (
    id          uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    workroom_id uuid NOT NULL REFERENCES workrooms (id) ON DELETE CASCADE,
    user_id     uuid REFERENCES users (id) ON DELETE SET NULL,
    content     text NOT NULL CHECK (length(content) BETWEEN 1 AND 32768),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_workroom_messages_created ON workroom_messages (workroom_id, created_at DESC, id DESC);
REVOKE UPDATE ON workroom_messages FROM tanka_app;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['workrooms', 'workroom_members', 'workroom_messages']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
END $$;
