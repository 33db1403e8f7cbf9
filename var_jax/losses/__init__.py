"""Losses of training: cross entropy of tokens, perceptual and adversarial losses, and discriminators."""
