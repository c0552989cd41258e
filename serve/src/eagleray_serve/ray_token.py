"""No API on an open Ray: its keys and projects would keep out nobody who reaches Ray's own ports."""

from __future__ import annotations

import logging

from ray._private.authentication.authentication_utils import is_token_auth_enabled

from eagleray.contract.errors import ConfigError

logger = logging.getLogger(__name__)
OPEN = (
    "This Ray asks for no token, so whoever reaches its ports can run code on the cluster, whatever keys the API has."
)


def check_ray(allow_open: bool) -> None:
    """Refuse to serve where Ray is not in token mode, unless that was allowed.

    Every process of a cluster has the mode that its `ray start` had, this one too.

    Raises:
        ConfigError: says how to start Ray with a token.
    """
    if is_token_auth_enabled():
        return
    if not allow_open:
        raise ConfigError(
            OPEN,
            "Start Ray with RAY_AUTH_MODE=token (ray get-auth-token --generate makes the token; docs/cluster.md), "
            "or set allow_open_ray: true in the arguments of the application.",
        )
    logger.warning("%s allow_open_ray lets it be so.", OPEN)
