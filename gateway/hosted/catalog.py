"""The catalog of a converted service, from its manifest alone: listed before it was ever built or started."""

from __future__ import annotations

import time

from gateway.hosted.entry import manifest_of
from gateway.protocol import Era
from registry.model import ServerCatalog, ServerSpec


def catalog_of(spec: ServerSpec) -> ServerCatalog:
    """What the service will list, byte for byte as its host sends it. Reads the manifest: for a worker thread.

    :raises ManifestUnusable: it cannot be read.
    """
    import msgspec

    from servers.host import listing
    from servers.host.wire import HANDSHAKE_VERSIONS

    manifest = manifest_of(spec)
    encode = msgspec.json.encode
    return ServerCatalog(
        server=spec.name,
        era=Era.HANDSHAKE.value,
        protocol_version=HANDSHAKE_VERSIONS[0],
        server_info=encode(listing.info(manifest)),
        capabilities=encode(listing.CAPABILITIES),
        instructions=listing.instructions(manifest),
        tools=tuple(encode(tool) for tool in listing.listed(manifest)),
        synced_at=time.time(),
    )
