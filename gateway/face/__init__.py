"""The thin face: one client on stdin and stdout, the shared gateway behind a Unix socket.

A desktop assistant starts a face anew with every window, so nothing here imports more of the
standard library than it needs, and nothing outside of it.
"""
