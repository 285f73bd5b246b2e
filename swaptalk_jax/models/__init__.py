"""The networks, one file each: plain fields in, arrays out; no losses, optimisers or configs."""
