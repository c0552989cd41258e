"""The routes, one module per noun."""

from fastapi import APIRouter

from eagleray_serve.routes import (
    checkpoints,
    dataset_tasks,
    datasets,
    events,
    frameworks,
    health,
    jobs,
    keys,
    logs,
    metrics,
    models,
    plan,
    projects,
    prototype,
    uploads,
    users,
)

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    prototype.router,
    plan.router,
    jobs.router,
    metrics.router,
    logs.router,
    checkpoints.router,
    events.router,
    frameworks.router,
    models.router,
    datasets.router,
    dataset_tasks.router,
    uploads.router,
    projects.router,
    users.router,
    keys.router,
)
