"""Every byte layout: model.licq, image.lic and what they hold; nothing else."""
