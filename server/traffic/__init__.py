"""Traffic policy: how services are called, which of their versions get the calls, and what became of them."""
