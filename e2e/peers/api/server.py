"""What the benchmark measures beside the API server: the same three routes as FastAPI, SQLAlchemy and redis-py are documented, on the same
PostgreSQL and Redis, with the same rows. Asynchronous throughout, one process for each core. It has no tenants, no row-level security, no
replicas and no limits of requests; nothing of it is part of the product."""

import hashlib
import json
import os
import secrets
import uuid
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone

import anyio
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import ForeignKey, select, true
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SESSION_SECONDS = 900
CACHE_SECONDS = 60
PAGE = 20


class Base(DeclarativeBase):
    type_annotation_map = {datetime: TIMESTAMP(timezone=True)}


class User(Base):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


class Session(Base):
    __tablename__ = "sessions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    token_hash: Mapped[str]
    expires_at: Mapped[datetime]


class Conversation(Base):
    __tablename__ = "conversations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID]
    title: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_message_at: Mapped[datetime]


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[uuid.UUID]
    content: Mapped[str]
    created_at: Mapped[datetime]


class Memory(Base):
    __tablename__ = "memories"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID]
    memory_type: Mapped[str]
    content: Mapped[str]
    created_at: Mapped[datetime]


engine = create_async_engine(
    os.environ["PEER_DATABASE"],
    pool_size=10,
    max_overflow=0,
    connect_args={"server_settings": {"application_name": "peer", "search_path": "peer"}},
)
database = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis.from_url(os.environ["PEER_REDIS"], decode_responses=True)
# 19 MiB and two passes, as the API server.
hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@asynccontextmanager
async def lifespan(_: FastAPI):
    yield
    await redis.aclose()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def opened():
    async with database() as session:
        yield session


async def caller(authorization: str = Header()) -> str:
    token = authorization.removeprefix("Bearer ")
    kept = await redis.get("peer:session:" + hashlib.sha256(token.encode()).hexdigest())
    if kept is None:
        raise HTTPException(401)
    return json.loads(kept)["user_id"]


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.get("/api/v1/memories")
async def memories(user_id: str = Depends(caller)):
    key = f"peer:memories:{user_id}"
    kept = await redis.get(key)
    if kept is not None:
        return json.loads(kept)
    async with database() as session:
        found = await session.scalars(
            select(Memory).where(Memory.user_id == uuid.UUID(user_id)).order_by(Memory.created_at.desc(), Memory.id.desc()).limit(PAGE)
        )
        answer = {
            "items": [
                {"id": str(m.id), "memory_type": m.memory_type, "content": m.content, "created_at": m.created_at.isoformat()}
                for m in found
            ]
        }
    await redis.set(key, json.dumps(answer), ex=CACHE_SECONDS)
    return answer


@app.get("/api/v1/conversations")
async def conversations(user_id: str = Depends(caller), session: AsyncSession = Depends(opened)):
    last = (
        select(Message.content, Message.created_at)
        .where(Message.conversation_id == Conversation.id)
        .order_by(Message.created_at.desc(), Message.id.desc())
        .limit(1)
        .lateral("last")
    )
    rows = await session.execute(
        select(Conversation, last.c.content, last.c.created_at)
        .outerjoin(last, true())
        .where(Conversation.user_id == uuid.UUID(user_id))
        .order_by(Conversation.last_message_at.desc(), Conversation.id.desc())
        .limit(PAGE)
    )
    return {
        "items": [
            {
                "id": str(c.id),
                "title": c.title,
                "created_at": c.created_at,
                "updated_at": c.updated_at,
                "last_message_content": content,
                "last_message_at": at,
            }
            for c, content, at in rows
        ]
    }


class Credentials(BaseModel):
    email: str
    password: str


def matches(stored: str, password: str) -> bool:
    try:
        return hasher.verify(stored, password)
    except VerifyMismatchError:
        return False


@app.post("/api/v1/auth/login")
async def login(credentials: Credentials, session: AsyncSession = Depends(opened)):
    user = await session.scalar(select(User).where(User.email == credentials.email.lower()))
    # In a thread: it takes a core for milliseconds.
    if user is None or not await anyio.to_thread.run_sync(matches, user.password_hash, credentials.password):
        raise HTTPException(401)
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    expires = datetime.now(timezone.utc) + timedelta(seconds=SESSION_SECONDS)
    session.add(Session(id=uuid.uuid4(), user_id=user.id, token_hash=digest, expires_at=expires))
    await session.commit()
    await redis.set("peer:session:" + digest, json.dumps({"user_id": str(user.id)}), ex=SESSION_SECONDS)
    return {"access_token": token, "token_type": "bearer", "user": {"id": str(user.id), "email": user.email}}
