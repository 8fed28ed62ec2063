"""The contract: generated messages and services in `v1`, and what turns them into values, checks and errors."""
