"""The kinds of records, and shards of them."""
