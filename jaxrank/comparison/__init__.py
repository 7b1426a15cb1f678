"""One page about several training runs."""
