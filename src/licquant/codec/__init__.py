"""Files: coding tables and coder, the latent coding of each family, artifact, bitstream, encode and decode.

Integers only wherever the decoder must repeat what the encoder did. Never imports torch.
"""
