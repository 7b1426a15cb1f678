"""The ids of texts: tokenised once, in memory or on disk."""
