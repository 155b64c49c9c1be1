"""Looking after a running gateway: its control socket, and the client that every CLI verb is."""
