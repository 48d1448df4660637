"""Widths that depend on the image (DynaQuant): stages in several widths that share weights, and what chooses.

Read in this order:

    settings       what a user chooses                   stages      what a stage is
    nested, shared_weights    weights of fewer bits inside wider ones
    network        a dynamic network: every stage in its widths         candidates   which stages get several
    selector       the network that chooses              selector_fit   fitted to measured losses
    objective      R + λ·D + γ·bits                      finetune    the training      lowering   to integers
"""
