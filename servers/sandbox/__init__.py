"""The ladder of sandboxes that converted code runs in."""
