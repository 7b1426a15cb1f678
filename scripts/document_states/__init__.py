"""Measurements of document states: python -m scripts.document_states.NAME --help.

NAME is exactness, speed, storage or kills.
"""
