"""The ways in which a CPU computes faster, handed to the models as a `Backend`."""
