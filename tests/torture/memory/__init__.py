"""Hundreds of clients against a server that may use 1 GiB: refusals, and no kill for want of memory."""
