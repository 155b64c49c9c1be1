"""Plans that run over the gateway's tools: what the router leaves to whoever reaches them."""
