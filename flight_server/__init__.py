"""Protocol: tickets in, batches out.  The only importer of pyarrow.flight."""
