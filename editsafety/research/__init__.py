"""Studies beside the gate: hard cases, experiments of the papers, key maps, perplexity as a surrogate."""
