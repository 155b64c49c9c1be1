"""The MCP registry's API (`/v0.1/servers`): read what others publish, and publish our own catalog."""
