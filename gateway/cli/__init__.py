"""The command line: every verb is a client of the running gateway's control socket."""
