"""Many facts in one edit, and batches on top of each other."""
