"""The control plane. See ARCHITECTURE.md for what may import what."""
