"""Whether a server answers, asked without a proxy and never for longer than is given."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit


def healthy(url: str, timeout: float) -> bool:
    """Whether `/health` of the server at `url` says 200 within `timeout` seconds."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    # Not urllib, which would ask a proxy of the site for an address of its own network.
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
