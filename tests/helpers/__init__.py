"""What several tests share: importable, no fixtures."""
