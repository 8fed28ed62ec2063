"""The control stream: decide, append, fold, answer; snapshots and recovery."""
