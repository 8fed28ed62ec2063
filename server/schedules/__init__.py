"""Schedules: events that are published later, once, at an interval or by the calendar."""
