"""Toolsets as clients meet them: views over the merged catalog, and the two meta tools that search them."""
