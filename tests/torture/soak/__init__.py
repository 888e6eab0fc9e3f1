"""A server under mixed work for hours, with clients that cancel, stall and die: nothing may grow, nothing may be wrong."""
