"""What stands before every method: principal, rights, rules, limits, deadline, metrics, statuses."""
