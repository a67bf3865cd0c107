-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tenant_users_active ON users (tenant_id, is_active, created_at DESC, id DESC) WHERE is_active;
