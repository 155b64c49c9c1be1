"""What runs have done, on disk before it is relied on."""
