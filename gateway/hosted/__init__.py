"""Converted services behind the gateway: listed from their manifests, built in the background, started by a call."""
