"""The ways a reply takes from the socket to where it is decoded: the default ring of blocks, and the others."""
