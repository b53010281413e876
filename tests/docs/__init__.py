"""The pages: README.md and docs/. What they show is what works."""
