"""The generator and the discriminator, their losses, the training loop and the export."""
