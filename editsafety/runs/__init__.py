"""A run as data: what is planned, what was found, and the store that keeps both. No torch here."""
