"""Which width each layer gets: costs, budgets, sensitivity, and the methods that choose.

Read in this order:

    methods      method → plan: one function a method
    costs        what a width costs, in the unit of each budget: bits, bytes, bit operations, milliseconds
    sensitivity  ζ of every layer and width, measured; ``probe`` measures one plan
    fmpq, optimal, hessian    the methods that use it; ``choices`` the widths to choose from
    search       what the methods share        file_budget   budgets that hold for the file
"""
