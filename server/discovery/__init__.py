"""Who is there, for those who ask: resolve, pick, watch, wait until applied, history. Reads the registry's fold."""
