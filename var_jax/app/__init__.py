"""The page of `var-jax app`: a small server on this machine, and what the browser is given."""
