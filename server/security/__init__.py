"""Who calls and what that allows; certificates and tokens."""
