"""Networks of others, as their public weights need them."""
