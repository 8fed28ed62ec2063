"""How services are called: policies, what holds for a service, what a change takes away, and what explains a pick."""
