"""A run on a cluster: dealt out, computed by workers, joined by the driver."""
