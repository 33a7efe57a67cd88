"""Parts that agents share, one concept a file."""
