"""What does an edit cost? Run without xdist."""
