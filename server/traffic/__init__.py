"""How services are called: policies, and what explains a pick."""
