"""Official files turned into collection folders."""
