"""How services are called: policies, what holds for a service, what a change takes away, what explains a pick."""
