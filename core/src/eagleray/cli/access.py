"""`eagleray keys`, `users` and `projects`: who may do what on a server, and how much."""

from __future__ import annotations

from typing import Annotated

import typer

from eagleray.cli.jobs import Json, Server, connected
from eagleray.cli.output import print_facts, print_json, print_table

keys = typer.Typer(help="Keys of a server; takes an admin's.", no_args_is_help=True)
users = typer.Typer(help="Users of a server, whom keys belong to; takes an admin's key.", no_args_is_help=True)
projects = typer.Typer(help="Projects of a server and their quotas.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")]
QuotaJobs = Annotated[int | None, typer.Option("--jobs", help="Jobs at a time; default: no limit.")]
QuotaGpus = Annotated[float | None, typer.Option("--gpus", help="GPUs at a time; default: no limit.")]


@keys.command("list")
def list_keys(server: Server = None, as_json: Json = False) -> None:
    """All keys, without their secrets."""
    with connected(server) as client:
        found = client.keys()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(key["id"]),
            key["name"],
            key["prefix"],
            ", ".join(key["scopes"]),
            "" if key["user_id"] is None else str(key["user_id"]),
            _listed(key["projects"]),
            "revoked" if key["revoked_at"] else key["expires_at"] or "",
        ]
        for key in found
    ]
    print_table(["KEY", "NAME", "BEGINS", "SCOPES", "USER", "PROJECTS", "ENDS"], rows)


@keys.command("create")
def create_key(
    name: Name,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="read, write or admin; may be repeated.")] = None,
    project: Annotated[
        list[str] | None, typer.Option("--project", help="It reaches only this project; may be repeated.")
    ] = None,
    user: Annotated[int | None, typer.Option(help="Number of the user that it belongs to.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="For example 2027-01-31T00:00:00Z.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """A new key. Its secret is shown this once."""
    with connected(server) as client:
        scopes = scope or ("read", "write")
        made = client.create_key(name, scopes=scopes, projects=project, user_id=user, expires_at=expires_at)
    if as_json:
        print_json(made)
    else:
        print_facts([("number", str(made["id"])), ("key", made["key"]), ("", "It is not shown again.")])


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[int, typer.Argument(metavar="KEY", help="The key's number.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Refuse it from now on."""
    with connected(server) as client:
        client.revoke_key(key_id)
    print_json({"id": key_id, "revoked": True}) if as_json else print(f"key {key_id} is revoked")


@users.command("list")
def list_users(server: Server = None, as_json: Json = False) -> None:
    """All users."""
    with connected(server) as client:
        found = client.users()
    if as_json:
        print_json(found)
        return
    print_table(
        ["USER", "NAME", "PROJECTS"], [[str(each["id"]), each["name"], _listed(each["projects"])] for each in found]
    )


@users.command("create")
def create_user(
    name: Name,
    project: Annotated[
        list[str] | None, typer.Option("--project", help="The user's keys reach only this project; may be repeated.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """A new user. A key of theirs: eagleray keys create NAME --user NUMBER."""
    with connected(server) as client:
        made = client.create_user(name, projects=project)
    print_json(made) if as_json else print(f"user {name} is made, number {made['id']}")


@users.command("delete")
def delete_user(
    user_id: Annotated[int, typer.Argument(metavar="USER", help="The user's number.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Forget a user; their keys are refused from now on."""
    with connected(server) as client:
        client.delete_user(user_id)
    print_json({"id": user_id, "deleted": True}) if as_json else print(f"user {user_id} is deleted")


@projects.command("list")
def list_projects(server: Server = None, as_json: Json = False) -> None:
    """Projects that the key sees."""
    with connected(server) as client:
        found = client.projects()
    if as_json:
        print_json(found)
        return
    rows = [[each["name"], _limit(each["quota_jobs"]), _limit(each["quota_gpus"])] for each in found]
    print_table(["PROJECT", "JOBS", "GPUS"], rows)


@projects.command("create")
def create_project(
    name: Name, jobs: QuotaJobs = None, gpus: QuotaGpus = None, server: Server = None, as_json: Json = False
) -> None:
    """A new project."""
    with connected(server) as client:
        made = client.create_project(name, quota_jobs=jobs, quota_gpus=gpus)
    print_json(made) if as_json else print(f"project {name} is made")


@projects.command("update")
def update_project(
    name: Name, jobs: QuotaJobs = None, gpus: QuotaGpus = None, server: Server = None, as_json: Json = False
) -> None:
    """Set both quotas; one that is left out has no limit."""
    with connected(server) as client:
        changed = client.update_project(name, quota_jobs=jobs, quota_gpus=gpus)
    shown = f"{_limit(changed['quota_jobs'])} jobs, {_limit(changed['quota_gpus'])} GPUs"
    print_json(changed) if as_json else print(f"project {name}: {shown}")


@projects.command("delete")
def delete_project(name: Name, server: Server = None, as_json: Json = False) -> None:
    """Forget a project that has no jobs."""
    with connected(server) as client:
        client.delete_project(name)
    print_json({"name": name, "deleted": True}) if as_json else print(f"project {name} is deleted")


def _listed(projects: list[str] | None) -> str:
    return "all" if projects is None else ", ".join(projects)


def _limit(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"
