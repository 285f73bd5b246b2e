"""What networks are kept as, and what each was made by."""
