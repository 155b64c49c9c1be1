"""From a request to the tools that answer it, and on to plans of calls."""
