"""Document states in a folder: `store` is the way in, its first lines say what lies there."""
