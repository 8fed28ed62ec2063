"""Who is there: instances, their leases, their status, and who is told of it."""
