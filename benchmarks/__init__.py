"""Measurements that take minutes and depend on the machine; ``make bench`` runs them. Not tests."""
