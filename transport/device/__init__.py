"""GPU memory: pinned blocks to copy from, a pool to decode in, slabs that same-host clients read in place."""
