"""The paper's experiments as commands: sweeps over sizes, power laws, ablations, the cost of sampling."""
