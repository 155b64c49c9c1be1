"""The code that runs inside a service's own environment.

It uses the standard library alone, so that a service's pins never meet ours, and is loaded under a name
of its own (``__main__.py``), so that it shadows no module of the code it runs.
"""
