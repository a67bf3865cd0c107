-- Energy tariffs, usage, and recommendations. The catalogue belongs to the platform and is public; what people use belongs to them.

CREATE TABLE plan_catalog (
    id                   uuid PRIMARY KEY,
    name                 text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    provider             text NOT NULL CHECK (length(provider) BETWEEN 1 AND 200),
    available_regions    text[] NOT NULL CHECK (cardinality(available_regions) BETWEEN 1 AND 200),
    currency             text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    time_zone            text NOT NULL CHECK (length(time_zone) BETWEEN 1 AND 64),
    renewable_percentage smallint NOT NULL CHECK (renewable_percentage BETWEEN 0 AND 100),
    rate_structure       jsonb NOT NULL,
    is_active            boolean NOT NULL DEFAULT true,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- An array is searched by GIN; a btree on it serves no `@>`.
CREATE INDEX idx_plan_catalog_region_active ON plan_catalog USING gin (available_regions) WHERE is_active;
CREATE INDEX idx_plan_rate_structure_gin ON plan_catalog USING gin (rate_structure jsonb_path_ops);
CREATE INDEX idx_active_plans ON plan_catalog (renewable_percentage DESC, id) WHERE is_active;
CREATE INDEX idx_plan_catalog_updated ON plan_catalog (updated_at DESC);

-- Whole watt hours of the hour that begins at usage_date: exact, and added up without rounding.
CREATE TABLE usage_history (
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    usage_date timestamptz NOT NULL CHECK (extract(minute FROM usage_date AT TIME ZONE 'UTC') = 0
                                           AND extract(second FROM usage_date) = 0),
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    watt_hours bigint NOT NULL CHECK (watt_hours BETWEEN 0 AND 1000000000)
);
-- The key of the table as well: one reading of a person and hour.
CREATE UNIQUE INDEX idx_usage_user_date ON usage_history (user_id, usage_date DESC);

-- Where a person uses energy, and by which plan.
CREATE TABLE energy_profiles (
    user_id         uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    tenant_id       uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    region          text NOT NULL CHECK (length(region) BETWEEN 1 AND 32),
    current_plan_id uuid REFERENCES plan_catalog (id) ON DELETE SET NULL,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE recommendations (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    body        text NOT NULL,
    computed_at timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX idx_recommendations_user_expires ON recommendations (user_id, expires_at DESC);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['usage_history', 'energy_profiles', 'recommendations']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
END $$;
REVOKE DELETE ON plan_catalog FROM tanka_app;
