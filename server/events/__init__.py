"""Streams of events and the subscriptions that consume them."""
