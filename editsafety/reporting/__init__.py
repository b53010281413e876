"""Reports: a RunReport in, text out. Nothing is judged here, so that every format says the same. No torch."""
