"""The page of `var-jax app`: a small server on this machine, and the files for the browser."""
