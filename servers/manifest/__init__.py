"""The manifest: the one file that says what a converted service is."""
