"""From a request to its batches: planned, cut, carried out by one session or several, proven to be whole."""
