"""Hard cases: vetting requests, looking through a pool, mining what collapses, asking for more candidates."""
