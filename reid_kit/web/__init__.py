"""A page and an HTTP interface over a gallery: find in it, and compare two pictures."""
