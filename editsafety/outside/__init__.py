"""Outside: editors that are no class of ours and no single function: programs, and methods of a toolbox."""
