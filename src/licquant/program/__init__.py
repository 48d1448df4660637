"""The integer network: arithmetic, operations, programs, and the engines that execute them. Never torch.

Read in this order:

    arithmetic       the integer contract: every range, rounding and multiplier
    grid, ops        what a tensor's integers mean; the operations       fields   what each operation holds
    part             parts and programs
    reference        the slow reference, as the definitions read         exact    the exact engine, fast
    openvino_layers, openvino_graph, openvino_engine    the fast engine
    self_test, checked                 whether its kernels are exact here
    dynamic, selector, chain           widths that depend on the image
"""
