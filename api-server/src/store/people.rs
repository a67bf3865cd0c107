//! People of a tenant, as those who manage them see them, and each person's own profile and settings.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::accounts::{EMAIL_TAKEN, FindUser, User, profile};
use super::logs::Entry;
use super::on_constraint;
use crate::domain::account::{Email, Name};
use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::membership::{Change, Refusal, Target, judge};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::principal::{Principal, Role};
use crate::domain::settings::{Settings, Theme};
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A person of the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The person.
    #[serde(flatten)]
    pub user: User,
    /// Whether the person may log in.
    pub is_active: bool,
    /// What the person prefers.
    pub settings: Settings,
}

struct MemberRow {
    id: Uuid,
    tenant_id: Uuid,
    email: String,
    name: String,
    role: String,
    is_active: bool,
    created_at: Timestamp,
    locale: Option<String>,
    timezone: Option<String>,
    theme: Option<String>,
    email_notifications: Option<bool>,
}

impl MemberRow {
    fn member(self) -> Result<Member, StoreError> {
        let settings = settings(self.locale, self.timezone, self.theme, self.email_notifications);
        Ok(Member {
            user: User {
                id: self.id,
                tenant_id: self.tenant_id,
                email: self.email,
                name: self.name,
                role: role(&self.role)?,
                created_at: self.created_at.to_jiff(),
            },
            is_active: self.is_active,
            settings,
        })
    }
}

fn role(text: &str) -> Result<Role, StoreError> {
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("{error}")))
}

/// A person who never changed a setting has the defaults.
fn settings(
    locale: Option<String>,
    timezone: Option<String>,
    theme: Option<String>,
    email_notifications: Option<bool>,
) -> Settings {
    match (locale, timezone, theme, email_notifications) {
        (Some(locale), Some(timezone), Some(theme), Some(email_notifications)) => Settings {
            locale,
            timezone,
            theme: Theme::stored(&theme),
            email_notifications,
        },
        _ => Settings::default(),
    }
}

/// People of the tenant with their settings, the newest first: one statement.
#[derive(Debug)]
pub struct ListMembers {
    /// Also those who may not log in.
    pub include_inactive: bool,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListMembers {
    type Output = Page<Member>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<Member>, StoreError> {
        let (at, id) = self.page.start();
        let at = at.map(Timestamp::from);
        let limit = self.page.fetch();
        let rows = if self.include_inactive {
            sqlx::query_as!(
                MemberRow,
                r#"SELECT u.id, u.tenant_id, u.email, u.name, u.role, u.is_active, u.created_at AS "created_at: Timestamp",
                          s.locale AS "locale?", s.timezone AS "timezone?", s.theme AS "theme?",
                          s.email_notifications AS "email_notifications?"
                     FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
                    WHERE (u.created_at, u.id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                    ORDER BY u.created_at DESC, u.id DESC LIMIT $3"#,
                at as _,
                id,
                limit
            )
            .fetch_all(&mut *on.connection)
            .await?
        } else {
            sqlx::query_as!(
                MemberRow,
                r#"SELECT u.id, u.tenant_id, u.email, u.name, u.role, u.is_active, u.created_at AS "created_at: Timestamp",
                          s.locale AS "locale?", s.timezone AS "timezone?", s.theme AS "theme?",
                          s.email_notifications AS "email_notifications?"
                     FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
                    WHERE u.is_active AND (u.created_at, u.id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                    ORDER BY u.created_at DESC, u.id DESC LIMIT $3"#,
                at as _,
                id,
                limit
            )
            .fetch_all(&mut *on.connection)
            .await?
        };
        let members: Result<Vec<_>, _> = rows.into_iter().map(MemberRow::member).collect();
        Ok(Page::cut(members?, self.page, |member: &Member| Cursor {
            at: member.user.created_at,
            id: member.user.id,
        }))
    }
}

async fn find(on: &mut WriteHandle<'_>, id: Uuid) -> Result<Member, StoreError> {
    sqlx::query_as!(
        MemberRow,
        r#"SELECT u.id, u.tenant_id, u.email, u.name, u.role, u.is_active, u.created_at AS "created_at: Timestamp",
                  s.locale AS "locale?", s.timezone AS "timezone?", s.theme AS "theme?",
                  s.email_notifications AS "email_notifications?"
             FROM users u LEFT JOIN user_settings s ON s.user_id = u.id WHERE u.id = $1"#,
        id
    )
    .fetch_optional(&mut *on.connection)
    .await?
    .ok_or(StoreError::Missing)?
    .member()
}

/// Makes an account in the tenant.
#[derive(Debug)]
pub struct CreateMember {
    /// Who does it.
    pub actor_id: Uuid,
    /// From where.
    pub origin: Origin,
    /// Identifies the person.
    pub id: Uuid,
    /// Address.
    pub email: Email,
    /// Name.
    pub name: Name,
    /// What the person may do.
    pub role: Role,
    /// Hash of the first password.
    pub password_hash: String,
}

impl Write for CreateMember {
    type Output = Member;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Member, StoreError> {
        insert(
            on,
            self.id,
            &self.email,
            &self.name,
            self.role,
            &self.password_hash,
        )
        .await?;
        let event = SecurityEvent::UserCreated;
        let entry = Entry::by(event, self.actor_id, Some(self.id), &self.origin);
        on.audit(&entry.with(format!("role {}", self.role.as_str())))
            .await?;
        on.activity(self.actor_id, event.as_str(), self.id).await?;
        find(on, self.id).await
    }
}

/// Inserts an account.
pub(super) async fn insert(
    on: &mut WriteHandle<'_>,
    id: Uuid,
    email: &Email,
    name: &Name,
    role: Role,
    password_hash: &str,
) -> Result<jiff::Timestamp, StoreError> {
    let made = sqlx::query!(
        r#"INSERT INTO users (id, tenant_id, email, name, password_hash, role)
           VALUES ($1, $2, $3, $4, $5, $6) RETURNING created_at AS "created_at: Timestamp""#,
        id,
        on.tenant,
        email.as_str(),
        name.as_str(),
        password_hash,
        role.as_str(),
    )
    .fetch_one(&mut *on.connection)
    .await
    .map_err(|error| on_constraint(error, EMAIL_TAKEN))?;
    Ok(made.created_at.to_jiff())
}

/// Changes what a person may do, or whether the person may log in.
#[derive(Debug)]
pub struct ChangeMember {
    /// Who does it.
    pub actor: Principal,
    /// From where.
    pub origin: Origin,
    /// Whom.
    pub id: Uuid,
    /// What.
    pub change: Change,
}

impl Write for ChangeMember {
    type Output = Member;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Member, StoreError> {
        // Two owners who demote each other at the same moment would leave none: changes of one tenant follow each other.
        sqlx::query!(
            "SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE",
            on.tenant
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        let present = sqlx::query!(
            r#"SELECT role, is_active, (SELECT count(*) FROM users o WHERE o.role = 'owner' AND o.is_active AND o.id <> $1) AS "owners!"
                 FROM users WHERE id = $1"#,
            self.id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let target = Target {
            is_self: self.actor.user_id == self.id,
            role: role(&present.role)?,
            other_owners: present.owners,
        };
        judge(self.actor.role, target, self.change).map_err(refused)?;
        let wanted = (
            self.change.role.unwrap_or(target.role),
            self.change.is_active.unwrap_or(present.is_active),
        );
        if wanted != (target.role, present.is_active) {
            self.apply(on, wanted, (target.role, present.is_active)).await?;
        }
        find(on, self.id).await
    }
}

impl ChangeMember {
    async fn apply(
        &self,
        on: &mut WriteHandle<'_>,
        (role, is_active): (Role, bool),
        (old_role, was_active): (Role, bool),
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE users SET role = $2, is_active = $3, updated_at = now() WHERE id = $1",
            self.id,
            role.as_str(),
            is_active,
        )
        .execute(&mut *on.connection)
        .await?;
        on.invalidate(&[profile(on.tenant, self.id).into()]).await?;
        let entry = |event| Entry::by(event, self.actor.user_id, Some(self.id), &self.origin);
        if role != old_role {
            let event = SecurityEvent::RoleChanged;
            let detail = format!("{} to {}", old_role.as_str(), role.as_str());
            on.audit(&entry(event).with(detail)).await?;
            on.activity(self.actor.user_id, event.as_str(), self.id).await?;
        }
        if is_active != was_active {
            let event = if is_active {
                SecurityEvent::Activated
            } else {
                SecurityEvent::Deactivated
            };
            on.audit(&entry(event)).await?;
            on.activity(self.actor.user_id, event.as_str(), self.id).await?;
        }
        if is_active {
            on.rights_changed(self.id).await
        } else {
            super::sessions::revoke_all(on, self.id, None).await.map(|_| ())
        }
    }
}

fn refused(refusal: Refusal) -> StoreError {
    match refusal {
        Refusal::OwnersOnly => StoreError::Denied("Only an owner may change owners, or make one."),
        Refusal::Yourself => {
            StoreError::Conflict("Nobody changes the own role or locks oneself; ask another owner or admin.")
        }
        Refusal::LastOwner => StoreError::Conflict("A tenant keeps at least one owner who may log in."),
    }
}

/// Changes the person's own name.
#[derive(Debug)]
pub struct RenameSelf {
    /// Who.
    pub user_id: Uuid,
    /// The new name.
    pub name: Name,
}

impl Write for RenameSelf {
    type Output = User;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<User, StoreError> {
        sqlx::query!(
            "UPDATE users SET name = $2, updated_at = now() WHERE id = $1",
            self.user_id,
            self.name.as_str(),
        )
        .execute(&mut *on.connection)
        .await?;
        on.activity(self.user_id, "profile.changed", self.user_id).await?;
        on.invalidate(&[profile(on.tenant, self.user_id).into()]).await?;
        FindUser(self.user_id)
            .run(&mut ReadHandle {
                connection: &mut *on.connection,
            })
            .await
    }
}

/// Reads the person's settings.
#[derive(Debug)]
pub struct FindSettings(pub Uuid);

impl Read for FindSettings {
    type Output = Settings;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Settings, StoreError> {
        let row = sqlx::query!(
            "SELECT locale, timezone, theme, email_notifications FROM user_settings WHERE user_id = $1",
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        Ok(row.map_or_else(Settings::default, |row| Settings {
            locale: row.locale,
            timezone: row.timezone,
            theme: Theme::stored(&row.theme),
            email_notifications: row.email_notifications,
        }))
    }
}

/// Replaces the person's settings.
#[derive(Debug)]
pub struct PutSettings {
    /// Who.
    pub user_id: Uuid,
    /// The new settings.
    pub settings: Settings,
}

impl Write for PutSettings {
    type Output = Settings;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Settings, StoreError> {
        sqlx::query!(
            "INSERT INTO user_settings (user_id, tenant_id, locale, timezone, theme, email_notifications)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (user_id) DO UPDATE SET locale = excluded.locale, timezone = excluded.timezone,
                theme = excluded.theme, email_notifications = excluded.email_notifications, updated_at = now()",
            self.user_id,
            on.tenant,
            self.settings.locale,
            self.settings.timezone,
            self.settings.theme.as_str(),
            self.settings.email_notifications,
        )
        .execute(&mut *on.connection)
        .await?;
        on.activity(self.user_id, "settings.changed", self.user_id)
            .await?;
        Ok(self.settings.clone())
    }
}
