"""The MCP server we are: requests in over HTTP or a stream, answered in the caller's own era."""
