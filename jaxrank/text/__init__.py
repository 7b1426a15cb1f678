"""Text: prompt templates, token ids and what truncation costs."""
