"""Configuration: options of the command line, own settings (TOML), the servers file (JSON)."""
