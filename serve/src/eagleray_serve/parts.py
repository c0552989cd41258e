"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from eagleray.control.commands import Commands
from eagleray.control.queries import Queries
from eagleray.plugins.host import Catalogue
from eagleray.settings import Settings
from eagleray.storage.store import Store
from eagleray_serve.auth import Authenticator
from eagleray_serve.dataset_work import DatasetWork
from eagleray_serve.metering import Meter
from eagleray_serve.settings import HttpSettings
from eagleray_serve.streams import EventFeed


@dataclass(frozen=True)
class Parts:
    """Of one replica. Nothing here is state that another replica would miss."""

    commands: Commands
    queries: Queries
    catalogue: Catalogue
    store: Store
    settings: Settings
    http: HttpSettings
    authenticator: Authenticator
    feed: EventFeed
    meter: Meter

    @cached_property
    def datasets(self) -> DatasetWork:
        """Datasets of the store, and the imports that this replica runs."""
        return DatasetWork(self.store, self.settings, self.commands, self.queries)


async def parts_of(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


Shared = Annotated[Parts, Depends(parts_of)]
