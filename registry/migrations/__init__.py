"""The store's schema, step by step. Travels in the wheel and is run by `registry.store`."""
