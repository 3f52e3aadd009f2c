"""Measurements that the book quotes: each is a command that prints one table from one run."""
