"""The embedded engine: a journal in a folder of segment files, and what reads, checks and copies one."""
