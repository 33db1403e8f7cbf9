"""The paper's experiments as commands: sweeps over sizes, power laws, ablations, what sampling costs."""
