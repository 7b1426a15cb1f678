"""Data: collections, training groups and the pipeline that turns them into batches."""
