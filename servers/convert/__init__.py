"""From a repository to a manifest: environment, discovery, selection, schemas, review."""
