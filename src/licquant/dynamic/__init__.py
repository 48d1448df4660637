"""Widths that depend on the image (DynaQuant): stages in several widths that share weights, and what chooses.

Read in this order:

    settings       what a user chooses                   stages         what a stage is
    nested         weights of fewer bits in wider ones   network        a dynamic network: every stage in its widths
    selector       the network that chooses              selector_fit   fitted to measured losses
    shared_weights moved to where fewer bits round them without bias
    objective      R + λ·D + γ·bits                      finetune       the training
    lowering       to integers
"""
