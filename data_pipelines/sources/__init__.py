"""What there is to read: a folder, a manifest, HDTF's lists."""
