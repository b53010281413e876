"""Where edits are made and measured: single ones, and along a schedule."""
