"""How each family's latent is coded, and the orders in which it is scanned."""
