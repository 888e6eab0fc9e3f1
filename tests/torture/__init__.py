"""Faults on purpose: every one of them at every moment of a read, again and again."""
