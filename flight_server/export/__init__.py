"""Tables to files: Parquet, Arrow or raw buffers, all of one snapshot; an interrupted export goes on."""
