"""A live model: its handle, where its weights are, and what can be asked of it."""
