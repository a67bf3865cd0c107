-- no-transaction
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS sync_sources_tenant_default_key ON sync_sources (tenant_id) WHERE is_tenant_default;
