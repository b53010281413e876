"""An edit as data, and the session that applies it to a model and takes it back bit for bit."""
