"""Files: coding tables and coder, the latent coding of each family, artifact, bitstream, encode and decode.

Integers only wherever the decoder must repeat what the encoder did. Never imports torch. Read in this order:

    codec        image → bytes → image with a loaded artifact: start here
    files/       every byte layout: where a .licq and a .lic are parsed
    entropy/     coding tables, ANS, escapes
    latents/     one file a family's way of coding its latent
    transform    g_a and g_s on images of any size      tiling   piece by piece      memory   what it takes
"""
