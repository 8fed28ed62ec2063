"""Storage formats of the journal. No API."""
