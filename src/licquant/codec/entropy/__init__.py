"""Entropy coding: coding tables of integer frequencies, ANS, escapes."""
