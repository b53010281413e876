"""Shortcuts, one per file: what a plain computation gives, in less time. `handle.engine.plain` switches them off."""
