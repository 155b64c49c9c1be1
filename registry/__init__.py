"""What exists: servers, their catalogs, approvals and assigned names, in one store."""
