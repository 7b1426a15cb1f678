"""Document states: what a causal model knows of a document, computed once and kept.

`states` has the interface; `memory`, `disk`, `cache` and `on_device` hold states; `formats` says
what they are kept in, `identity` what they were made for. `encoding` makes them of texts, `filling`
those that are missing, `scoring` scores from them, and `of_model` gives a model all three.
"""
