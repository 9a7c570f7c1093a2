"""What answers here, and whether it is well."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from api.deps import ResourcesDep
from api.errors import DATABASE_ERRORS
from api.schemas import Alive, Health, Ready, Service

CHECK_SECONDS = 2.0

router = APIRouter(tags=["Status"])


@router.head("/", include_in_schema=False)
@router.get("/", summary="Name and version")
async def service(request: Request) -> Service:
    """Says that the service is up."""
    return Service(name="Consulta", version=request.app.version, docs="/docs")


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Is the process alive?")
async def live() -> Alive:
    """For probes: replies as long as the process runs, whatever it depends on."""
    return Alive()


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    summary="Can it do its work?",
    responses={503: {"model": Ready, "description": "Something it depends on is down"}},
)
async def ready(resources: ResourcesDep, response: Response) -> Ready:
    """For probes: 200 when the users' database and the queue can be reached, else 503."""
    ping_users = anyio.to_thread.run_sync(resources.users.ping, abandon_on_cancel=True)
    users, queue = await asyncio.gather(
        _health(ping_users), _health(resources.database.command("ping"))
    )
    if not resources.migrated.is_set():
        users = "down"
    status: Health = "ok" if users == queue == "ok" else "down"
    response.status_code = 200 if status == "ok" else 503
    return Ready(status=status, users=users, queue=queue)


async def _health(check: Awaitable[Any]) -> Health:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except (*DATABASE_ERRORS, TimeoutError):
        return "down"
    return "ok"
