"""The live gateway: endpoint, upstream connections, catalog, admin and CLI."""
