"""Which width each layer gets: costs, budgets, sensitivity, and the methods that choose.

costs    what a width costs, in the unit of each budget: bits, bytes, bit operations, milliseconds
"""
