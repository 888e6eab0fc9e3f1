"""Who calls: the ways of logging in behind one interface, and the middleware that asks them."""
