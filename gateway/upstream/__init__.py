"""Connections to the servers behind the gateway: one transport per file, one supervised pool per server."""
