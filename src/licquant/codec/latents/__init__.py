"""How each family's latent is coded, and the orders in which it is scanned.

Read in this order:

    bottleneck       one coding table a channel: z everywhere, and y of ``factorized``
    gaussian         symbols from σ and μ, pass by pass, encoder's and decoder's side
    hyperprior       what all families with a hyperprior share; the scale and the mean-scale hyperprior
    orders           diagonals and checkerboards: the scan orders
    masked, pointwise, spatial    a context in the plane, for the positions of one pass
    context          the autoregressive and the checkerboard family        channel_groups   ELIC's
    families         family → coder: one line a family
"""
