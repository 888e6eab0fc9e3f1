"""Broken tickets, descriptors, messages, actions and headers: answered by typed errors, whatever they are."""
