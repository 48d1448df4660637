"""Entropy coding: coding tables of integer frequencies, ANS, escapes.

Read in this order: ``tables`` (integer frequencies), ``coder`` (symbols to bytes, group by group, with escapes),
``ans`` (the stack beneath it; ``plain_ans`` the same without constriction), ``rice`` (how tables are stored).
"""
